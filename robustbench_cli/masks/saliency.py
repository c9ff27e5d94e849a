"""What the model looks at (Simonyan et al., 2014), https://arxiv.org/abs/1312.6034, section 3."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.core.gradient_ascent import gradient
from robustbench_cli.core.losses import cross_entropy
from robustbench_cli.core.model_modes import evaluating
from robustbench_cli.core.registry import Number
from robustbench_cli.masks import MASKS, Mask, Sight


@MASKS.register("saliency", positional="top")
@dataclass(frozen=True, kw_only=True)
class Saliency(Mask):
    """Pixels may change but for those with the largest gradient of the clean image's loss.

    The loss is the cross-entropy of the label, a pixel's gradient the largest magnitude over its
    channels; the model is in evaluation mode.  Saliency is the model's own view and says little
    about where the object is: two models get different masks, so their numbers do not compare.
    """

    top: Annotated[Number, Field(ge=0, le=1)] = 0.2
    """The share of the pixels that must stay; of equal ones the first."""

    def open(self, sight: Sight) -> Tensor:
        with evaluating(sight.model):
            _, grad = gradient(sight.model, _loss, sight.y, sight.x)
        size = grad.abs().amax(1)
        order = size.flatten(1).argsort(dim=1, descending=True, stable=True)
        kept = order[:, : round(self.top * order.shape[1])]
        free = torch.ones_like(order, dtype=torch.bool).scatter(1, kept, False)
        return free.view_as(size)[:, None]


def _loss(logits: Tensor, y: Tensor) -> Tensor:
    # In float64: where a model is sure, float32 rounds the label's own part of the gradient away.
    return cross_entropy(logits.double(), y.double() if y.is_floating_point() else y)
