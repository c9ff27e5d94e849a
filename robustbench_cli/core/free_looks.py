"""Looks at a mask that cost nothing: on a CPU an answer is there, a GPU would be waited for.

They leave out work that is for marked rows only.  What is left out must change no result, because
a GPU is never asked and does all of it.
"""

import math

from torch import Tensor


def surely_none(mask: Tensor) -> bool:
    """Return True if a mask (any shape, bool) marks nothing; on a GPU False, unasked."""
    return mask.device.type == "cpu" and not bool(mask.any())


def surely_some(mask: Tensor) -> bool:
    """Return True if a mask (any shape, bool) marks something; on a GPU False, unasked."""
    return mask.device.type == "cpu" and bool(mask.any())


def surely_all(mask: Tensor) -> bool:
    """Return True if a mask (any shape, bool) marks everything; on a GPU False, unasked."""
    return mask.device.type == "cpu" and bool(mask.all())


def rows_to_work_on(mask: Tensor) -> Tensor | slice:
    """Return the positions of the marked rows of a mask (B, bool); on a GPU all of them.

    What is worked out for others must not be used: the caller picks by the mask.
    """
    return mask.nonzero().squeeze(1) if mask.device.type == "cpu" else slice(None)


def surely_finite(values: Tensor) -> bool:
    """Return True if no value (any shape) is NaN or infinite; False where that is not sure.

    It is not if their sum overflows, nor on a GPU, which is not asked.
    """
    return values.device.type == "cpu" and math.isfinite(values.sum().item())
