"""Gradient saliency (Simonyan et al., 2014), https://arxiv.org/abs/1312.6034, section 3."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.core.gradient_ascent import gradient
from robustbench_cli.core.losses import cross_entropy
from robustbench_cli.core.model_modes import evaluating
from robustbench_cli.core.registry import Number
from robustbench_cli.masks import MASKS, Mask, MaskContext


@MASKS.register("saliency", positional="top")
@dataclass(frozen=True, kw_only=True)
class Saliency(Mask):
    """All pixels may change but those with the largest gradients of the loss at the clean image.

    The loss is the cross-entropy of the label (the paper takes the class score), a pixel's gradient
    the largest magnitude over its channels; the model is in evaluation mode.  Saliency depends on
    the model and says little about where the object is: two models get different masks, so their
    robust accuracies cannot be compared.
    """

    top: Annotated[Number, Field(ge=0, le=1)] = 0.2
    """Share of the pixels that must not change; ties go to the first pixel."""

    def selected(self, context: MaskContext) -> Tensor:
        with evaluating(context.model):
            _, grad = gradient(context.model, _loss, context.y, context.x)
        size = grad.abs().amax(1)
        order = size.flatten(1).argsort(dim=1, descending=True, stable=True)
        kept = order[:, : round(self.top * order.shape[1])]
        free = torch.ones_like(order, dtype=torch.bool).scatter(1, kept, False)
        return free.view_as(size)[:, None]


def _loss(logits: Tensor, y: Tensor) -> Tensor:
    # In float64, because in float32 a confident prediction rounds the gradient by the label's
    # own logit, p - 1, to zero.
    return cross_entropy(logits.double(), y.double() if y.is_floating_point() else y)
