"""The distance between two answers of a model to the same images."""

from torch import Tensor

NO_DIFFERENCE = 1e-4
"""The largest difference of two answers that are the same, relative to the range of the logits.
Float32 itself differs by about 1e-6 between batch sizes."""
ROUNDING = 1e-5
"""Differences below this fraction of the largest logit are rounding."""


def largest_difference(one: Tensor, other: Tensor) -> Tensor:
    """Return the largest difference of each image's logits, relative to the logits' range (B).

    Args:
        one: logits (B, K) of one pass.
        other: logits (B, K) of another; where one of the two is not finite and the other is, the
            difference is infinite.
    """
    spread = (one.amax(1) - one.amin(1)).clamp_min(1e-30)
    apart = (one - other).abs().amax(1)
    apart = apart.where(apart > ROUNDING * one.abs().amax(1), 0.0)
    odd = one.isfinite().all(1) != other.isfinite().all(1)
    return (apart / spread).nan_to_num(0.0).masked_fill(odd, float("inf"))
