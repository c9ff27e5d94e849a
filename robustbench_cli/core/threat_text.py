"""Threats as text, for tables and messages; imports no torch."""

PIXEL_VALUES = ("Linf", "L2", "L1")
"""The norms whose radius is in units of pixels in [0, 1]."""


def format_eps(eps: float) -> str:
    """Return ``eps`` as text: as ``8/255`` if it is a multiple of 1/255, else as the number.

    Values that three decimals express exactly stay numbers: 0.031, 0.2, 1.
    """
    levels = eps * 255
    fraction = abs(levels - round(levels)) < 1e-6 and round(eps, 3) != eps
    return f"{round(levels)}/255" if fraction else f"{eps:g}"


def format_size(norm: str, eps: float) -> str:
    """Return a radius as text, and the size of a threat that has no unit of pixel values."""
    return format_eps(eps) if norm in PIXEL_VALUES else f"{eps:g}"


def format_threat(norm: str, eps: float, mask: str = "") -> str:
    """Return a threat as text, e.g. ``Linf 8/255`` or ``L2 1, mask box:share=0.5``, ``patch 5``."""
    return f"{norm} {format_size(norm, eps)}" + (f", mask {mask}" if mask else "")
