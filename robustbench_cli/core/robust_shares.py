"""From per-example verdicts to how often each example is right under an attack; no torch."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def within_radius(norm: "np.ndarray", eps: float) -> "np.ndarray":
    """Return whether distances (N) are at most ``eps``, up to rounding, as bool (N)."""
    return norm <= eps * (1 + 1e-6)


def nearest_shares(
    right: "np.ndarray", broken: "np.ndarray", norm: "np.ndarray", eps: float
) -> "np.ndarray":
    """Return how often each example is right under an attack that looks for the nearest image (N).

    Args:
        right: how often it is right on the clean image, in [0, 1] (N).
        broken: bool (N), whether the attack found an adversarial image.
        norm: the distance of that image, in the norm of the threat (N).
        eps: the radius within which it counts.
    """
    found: np.ndarray = right * ~(broken & within_radius(norm, eps))
    return found


def bounded_shares(right: "np.ndarray", share: "np.ndarray") -> "np.ndarray":
    """Return how often each example is right before and after an attack within the ball (N).

    Args:
        right: how often it is right on the clean image, in [0, 1] (N).
        share: how often it is right on the attack's image, in [0, 1] (N).
    """
    import numpy as np

    return np.asarray(np.minimum(right, share))
