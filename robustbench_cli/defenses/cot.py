"""Complement objective training (Chen et al., 2019), https://arxiv.org/abs/1903.01182."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from robustbench_cli.core.losses import complement_entropy
from robustbench_cli.defenses import DEFENSES, Objective
from robustbench_cli.defenses._complement import check_wrong_classes
from robustbench_cli.defenses._step import Passes, Setting, Step
from robustbench_cli.models import Classifier


@DEFENSES.register("cot")
@dataclass(frozen=True, kw_only=True)
class COT(Objective):
    """Two updates per batch: cross-entropy, then the entropy over the wrong classes.

    The first update minimises the criterion on clean images; the second, after a fresh forward
    pass, maximises the entropy of the prediction over the wrong classes, which flattens it.  As in
    the code the second has an optimiser of its own (the momenta are not mixed) with the same
    learning rate.  The paper divides the entropy by the number of wrong classes, the code by that
    of all.  COT aims at accuracy: do not expect robustness against more than single-step attacks.
    """

    variant: Literal["paper", "code"] = "paper"
    """The entropy is divided by the number of wrong classes (paper) or of all (code)."""

    one_label: ClassVar[bool] = True

    @property
    def updates_per_batch(self) -> int:
        return 2

    def auxiliary(self, setting: Setting) -> nn.Module:
        check_wrong_classes(DEFENSES.name_of(self), setting.shape.classes)
        return WeightCopies(setting.model)

    def loss(self, step: Step, logits: Passes) -> Tensor:
        if step.update_index == 0:
            return step.criterion(logits["clean"], step.y)
        classes = logits["clean"].shape[1] - (self.variant == "paper")
        return -complement_entropy(logits["clean"], step.y) / classes

    def after_backward(self, step: Step, inputs: Mapping[str, Tensor]) -> None:
        if step.update_index == 1:
            step.auxiliary(self, WeightCopies).take_gradients(step.model)

    def after_optimizer_step(self, step: Step) -> None:
        step.auxiliary(self, WeightCopies).synchronise(step.model, step.update_index)


class WeightCopies(nn.Module):
    """Copies of the model's weights, which give the second update momentum buffers of its own.

    The optimiser holds both: it moves the weights in the first update and the copies in the second.
    """

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.copies = nn.ParameterList(p.detach().clone() for p in _trained(model))

    def take_gradients(self, model: Classifier) -> None:
        """Move the weights' gradients to the copies, so that the optimiser steps those alone."""
        for own, weight in zip(self.copies, _trained(model), strict=True):
            own.grad, weight.grad = weight.grad, None

    @torch.no_grad()
    def synchronise(self, model: Classifier, update_index: int) -> None:
        """Copy the values that this update moved to the tensors that it did not.

        Args:
            update_index: 0 where the weights moved, 1 where the copies did.
        """
        own: list[Tensor] = list(self.copies)
        weights = _trained(model)
        stayed, went = (weights, own) if update_index == 1 else (own, weights)
        torch._foreach_copy_(stayed, went)


def _trained(model: Classifier) -> list[Tensor]:
    return [p for p in model.parameters() if p.requires_grad]
