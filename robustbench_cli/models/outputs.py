"""The logits in what a model returns: a tensor, a tuple, a dictionary or an object."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from robustbench_cli.core.errors import UserError

OutputPlace = tuple[str | int, ...]
"""Where the logits are: nothing (the output itself), or an attribute, a key or a position."""


def logits_at(out: Any, place: OutputPlace) -> Tensor:
    """Return the logits at a place that ``find_logits`` found."""
    for key in place:
        of_object = isinstance(key, str) and not isinstance(out, Mapping)
        out = getattr(out, str(key)) if of_object else out[key]
    found: Tensor = out
    return found


def find_logits(out: Any, rows: int, classes: int | None) -> tuple[OutputPlace, Tensor]:
    """Return where the logits of a batch are, and the logits.

    They are what is called ``logits``, else the only numbers (B, K), else the only ones with one
    column for each class.

    Args:
        out: what the model returned.
        rows: the number of images.
        classes: the number of classes; None: not known.

    Raises:
        UserError: it is not clear which they are.
    """
    if isinstance(out, Tensor):
        return (), out
    named = out.get("logits") if isinstance(out, Mapping) else getattr(out, "logits", None)
    if isinstance(named, Tensor):
        return ("logits",), named
    parts: dict[str | int, Any] = {}
    if isinstance(out, Mapping):
        parts = dict(out)
    elif isinstance(out, list | tuple):
        parts = dict(enumerate(out))
    tensors = {key: each for key, each in parts.items() if isinstance(each, Tensor)}
    fitting = {k: v for k, v in tensors.items() if _are_scores(v, rows)}
    if len(fitting) > 1:
        fitting = {k: v for k, v in fitting.items() if v.shape[1] == classes}
    if len(fitting) == 1:
        ((key, logits),) = fitting.items()
        return (key,), logits
    shown = ", ".join(f"{key!r}: {tuple(each.shape)}" for key, each in tensors.items())
    held = f" with {shown}" if shown else ""
    first = next(iter(tensors), 0)
    raise UserError(
        f"the model returns {type(out).__name__}{held}: which are its logits (B, K)? Say it in "
        f"one line where the model is made: "
        f"net.register_forward_hook(lambda net, x, out: out[{first!r}])"
    )


def _are_scores(each: Tensor, rows: int) -> bool:
    return each.is_floating_point() and each.ndim == 2 and len(each) == rows
