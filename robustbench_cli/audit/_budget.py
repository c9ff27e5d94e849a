"""How many images checks may look at: a small part of the passes of the evaluation, or half a
second of arithmetic, whichever is more.

Both are estimated, not measured, so that the same evaluation always makes the same checks.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from robustbench_cli.attacks import Stage

PER_SECOND = 2e10
"""Floating-point operations that one slow processor core does in a second."""
SECONDS = 0.5
"""Seconds of arithmetic that checks may always take."""
SHARE = 0.03
"""The part of an evaluation's passes that checks may take."""
BROKEN_EARLY = 0.2
"""The part of the passes of an attack that is expected: most images do not need all of them."""
FEWEST, MOST = 4, 32
"""Images that model checks look at."""
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
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(x)
        counted = float(counter.get_total_flops()) / len(x)
    except Exception:  # the model is the user's, and may not go with a dispatch mode
        counted = 0.0
    return max(counted, 2.0 * sum(p.numel() for p in model.parameters()), 1.0)


def planned_passes(stages: Iterable[Stage]) -> int:
    """Return the passes, forward and backward, of an image that withstands all these stages."""
    return sum(
        max(
            2 * int(getattr(stage.attack, "steps", 1)) * stage.attack.draws,
            int(getattr(stage.attack, "queries", 1)),
        )
        for stage in stages
    )


def affordable(images: int, planned: float, cost: float, flops: float, part: float) -> int:
    """Return for how many images there is time.

    Args:
        images: that are evaluated.
        planned: passes of an image that withstands all attacks.
        cost: passes that are wanted for each image.
        flops: floating-point operations of a pass.
        part: the part of the evaluation's passes that may be taken.
    """
    passes = max(part * BROKEN_EARLY * planned * images, SECONDS * PER_SECOND / flops)
    return int(passes / max(1.0, cost))


def probe_images(images: int, planned: float, cost: float, flops: float) -> int:
    """Return on how many images model checks that cost so many passes each are to be made."""
    wanted = affordable(images, planned, cost, flops, SHARE)
    return min(images, max(FEWEST, min(MOST, wanted)))


def control_images(images: int, planned: float, cost: float, flops: float) -> int:
    """Return on how many images the control attack is to be made."""
    wanted = affordable(images, planned, cost, flops, CONTROL_SHARE / BROKEN_EARLY)
    return min(images, max(CONTROL_FEWEST, min(CONTROL_MOST, wanted)))
