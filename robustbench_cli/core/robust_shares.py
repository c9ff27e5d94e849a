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


EXPLAINED = 0.12
"""A fall of a share that the draws explain: 1.645 deviations of a difference, 100 draws each."""


def lowered_shares(before: "np.ndarray", after: "np.ndarray") -> "np.ndarray":
    """Return how often each example is right once another attack is tried as well (N).

    The smaller of several means over draws is too small where nothing but luck differs, so what the
    draws explain does not count.  Of a model that is not randomised every share is 0 or 1.

    Args:
        before: how often it is right under one attack, in [0, 1] (N).
        after: how often it is right under the other one, in [0, 1] (N).
    """
    import numpy as np

    return np.where(before - after > EXPLAINED, after, before)
