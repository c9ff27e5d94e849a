"""How many images checks may look at: a small part of the passes of the evaluation, or half a
second of arithmetic, whichever is more.

Both are estimated or counted, not measured, so that the same evaluation always makes the same
checks.  Before the attacks only their plan is known, and most images do not need all of it; after
them, what they took.  So few images are looked at before, and more afterwards where the attacks had
to work: where images stood, and a number could be too high.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from robustbench_cli.attacks import Stage

PER_SECOND = 2e10
"""Floating-point operations that one slow processor core does in a second."""
SECONDS = 0.5
"""Seconds of arithmetic that checks may always take."""
SHARE = 0.03
"""The part of an evaluation's passes that checks may take."""
BROKEN_EARLY = 0.1
"""The part of the planned passes that an undefended net leads to: most images fall at once."""
FEWEST, MOST = 2, 32
"""Images that model checks look at, before the attacks and again after them."""
CONFIRMED = 12
"""Images, at least, on which a finding is seen before it is told."""
CONTROL_SHARE = 0.1
"""The part of an evaluation's passes that the control attack may take."""
CONTROL_FEWEST, CONTROL_MOST = 6, 48
"""Images that the control attack works on."""


def operations(model: nn.Module, x: Tensor) -> float:
    """Return the floating-point operations of a forward pass, per image.

    Where they cannot be counted (TorchScript), two for each parameter stand in for them.

    Args:
        x: a few images (B, C, H, W).
    """
    counter = _ProductCounter()
    try:
        with counter, torch.no_grad():
            model(x)
    except Exception:  # the model is the user's, and may not go with a function mode
        counter.products = 0
    counted = 2.0 * counter.products / len(x)
    return max(counted, 2.0 * sum(p.numel() for p in model.parameters()), 1.0)


class _ProductCounter(TorchFunctionMode):
    """Counts the multiplications of convolutions and matrix products.

    ``torch.utils.flop_counter`` counts the same, but loads torch's compiler, which takes longer
    than a short evaluation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.products = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in _SUMMED and len(args) > 1:
            self.products += out.numel() * _SUMMED[func](args[1])
        return out


def _per_output(weight: Tensor) -> int:
    """Return how many products make a number of the output; a weight has outputs first."""
    return weight[0].numel()


_SUMMED: dict[Callable[..., Any], Callable[[Tensor], int]] = {
    **dict.fromkeys([F.conv1d, F.conv2d, F.conv3d, F.linear], _per_output),
    **dict.fromkeys(
        [torch.matmul, torch.bmm, torch.mm, Tensor.matmul, Tensor.__matmul__, Tensor.bmm],
        lambda other: other.shape[-2] if other.ndim > 1 else other.shape[0],
    ),
}


def planned_passes(stages: Sequence[Stage]) -> int:
    """Return the passes, forward and backward, of an image that withstands all these stages."""
    return sum(stage.attack.planned_passes for stage in stages)


def affordable(passes: float, cost: float, flops: float, part: float, spent: float = 0) -> int:
    """Return for how many images there is time.

    Args:
        passes: of the evaluation.
        cost: passes that are wanted for each image.
        flops: floating-point operations of a pass.
        part: the part of the evaluation's passes that may be taken.
        spent: passes that were taken before.
    """
    allowed = max(part * passes, SECONDS * PER_SECOND / flops) - spent
    return int(allowed / max(1.0, cost))


def probe_images(
    images: int, passes: float, cost: float, flops: float, *, spent: float = 0, fewest: int = FEWEST
) -> int:
    """Return on how many of the images model checks that cost so many passes each are made."""
    wanted = affordable(passes, cost, flops, SHARE, spent)
    return min(images, max(fewest, min(MOST, wanted)))


def control_images(images: int, planned: float, cost: float, flops: float) -> int:
    """Return on how many images the control attack is to be made.

    Args:
        planned: passes of an image that withstands all attacks.
    """
    wanted = affordable(planned * images, cost, flops, CONTROL_SHARE)
    return min(images, max(CONTROL_FEWEST, min(CONTROL_MOST, wanted)))
