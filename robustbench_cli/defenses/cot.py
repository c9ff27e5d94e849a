"""Complement objective training (Chen et al., 2019), https://arxiv.org/abs/1903.01182."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from robustbench_cli.defenses import DEFENSES, Objective
from robustbench_cli.defenses._complement import check_wrong_classes, complement_entropy
from robustbench_cli.defenses._step import Passes, Setting, Step
from robustbench_cli.models import Classifier


@DEFENSES.register("cot")
@dataclass(frozen=True, kw_only=True)
class COT(Objective):
    """Two updates per batch: the criterion, then the complement entropy of a fresh pass.

    The second one spreads the wrong classes' shares evenly.  As in the code it has an optimiser
    of its own (momentum is not mixed) with the same learning rate.  The entropy is divided by the
    number of wrong classes, in the code by that of all.  It is about accuracy: do not expect
    robustness against more than single-step attacks.
    """

    variant: Literal["paper", "code"] = "paper"
    """What the entropy is divided by: the wrong classes (paper) or all (code)."""

    one_label: ClassVar[bool] = True

    @property
    def updates_per_batch(self) -> int:
        return 2

    def auxiliary(self, setting: Setting) -> nn.Module:
        check_wrong_classes(DEFENSES.name_of(self), setting.shape.classes)
        return Twins(setting.model)

    def loss(self, step: Step, logits: Passes) -> Tensor:
        if step.update_index == 0:
            return step.criterion(logits["clean"], step.y)
        classes = logits["clean"].shape[1] - (self.variant == "paper")
        return -complement_entropy(logits["clean"], step.y) / classes

    def after_backward(self, step: Step, inputs: Mapping[str, Tensor]) -> None:
        if step.update_index == 1:
            step.auxiliary(self, Twins).take_gradients(step.model)

    def after_optimizer_step(self, step: Step) -> None:
        step.auxiliary(self, Twins).agree(step.model, step.update_index)


class Twins(nn.Module):
    """A copy of each weight: the optimiser keeps one momentum for it, another for the weight."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.copies = nn.ParameterList(p.detach().clone() for p in _trained(model))

    def take_gradients(self, model: Classifier) -> None:
        """Let the optimiser move the copies; weights without a gradient stay."""
        for own, weight in zip(self.copies, _trained(model), strict=True):
            own.grad, weight.grad = weight.grad, None

    @torch.no_grad()
    def agree(self, model: Classifier, update_index: int) -> None:
        """Put those that stayed in this turn where the others went."""
        own: list[Tensor] = list(self.copies)
        weights = _trained(model)
        stayed, went = (weights, own) if update_index == 1 else (own, weights)
        torch._foreach_copy_(stayed, went)


def _trained(model: Classifier) -> list[Tensor]:
    return [p for p in model.parameters() if p.requires_grad]
