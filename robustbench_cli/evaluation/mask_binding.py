"""The mask of a threat, bound to all examples of an evaluation."""

from functools import reduce

import torch
from torch import nn

from robustbench_cli import masks
from robustbench_cli.core.examples import Examples
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.verifier import unchanged_model
from robustbench_cli.masks import MaskContext

_BATCH = 256
"""Images per batch when masks are made: fixed, so that no setting of a run can change a mask."""


def bind_mask(threat: Threat, model: nn.Module, data: Examples) -> Threat:
    """Return the threat bound to every example of ``data``; without a mask, the threat itself.

    Raises:
        UserError: the mask does not fit the images.
    """
    if not threat.mask:
        return threat
    with unchanged_model(model):
        parts = [
            masks.bind_to_images(
                threat, MaskContext(model=model, x=data.images(rows), y=data.y[rows], ids=rows)
            )
            for rows in torch.split(torch.arange(len(data.y), device=data.y.device), _BATCH)
        ]
    return reduce(lambda bound, part: bound.joined(part), parts)
