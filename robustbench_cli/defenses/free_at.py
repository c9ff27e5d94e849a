"""Free adversarial training (Shafahi et al., 2019), https://arxiv.org/abs/1904.12843, algorithm 1.

Each batch is used several times in a row, and each backward pass gives the gradient for the
weights and the one for the images.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.gradient_ascent import StepSize, projected_step
from robustbench_cli.defenses import DEFENSES, Modifier, Objective, Recipe
from robustbench_cli.defenses._step import Passes, Setting, Step


@DEFENSES.register("free-at")
@dataclass(frozen=True, kw_only=True)
class FreeAT(Objective):
    """The criterion on images whose perturbation is carried over from batch to batch.

    It is never reset: place i of a batch begins with what place i of the last one ended with.

    An epoch costs as much as ``replays`` ordinary ones: divide ``--epochs`` by it, as the paper
    does.  The official codes clip images to [0, 1] inside the graph, where a saturated pixel has
    no gradient and its perturbation is stuck (15 points of robust accuracy on digits, which are
    mostly black); here, as in Wong et al.'s code (2020), the perturbation itself is projected to
    the box.  The net is in train mode throughout.
    """

    replays: Annotated[int, Field(ge=1)] = 8
    """Updates in a row from each batch, m in the paper: 8 on CIFAR, 4 on ImageNet."""
    step: StepSize = 1.0
    """Size of the perturbation's step per update, as a fraction of eps."""

    alone: ClassVar[str] = "remembers a perturbation for each place in a batch"

    @property
    def updates_per_batch(self) -> int:
        return self.replays

    def check(self, recipe: Recipe, epochs: int) -> None:
        for part in recipe.modifiers:
            if type(part).weights is not Modifier.weights:
                raise UserError(
                    "free-at takes the gradients of images and weights from one pass, at the "
                    f"weights as they are; {DEFENSES.name_of(part)!r} takes them at others: write "
                    f"pgd-at+{DEFENSES.name_of(part)}"
                )

    def auxiliary(self, setting: Setting) -> nn.Module:
        shape = setting.shape
        return Carried(setting.batch_size, shape.channels, shape.height, shape.width)

    def crafted(self, step: Step) -> Mapping[str, Tensor]:
        return {"adv": step.threat.project(step.x + self._delta(step), step.x).requires_grad_()}

    def loss(self, step: Step, logits: Passes) -> Tensor:
        return step.criterion(logits["adv"], step.y)

    def after_backward(self, step: Step, inputs: Mapping[str, Tensor]) -> None:
        grad, delta = inputs["adv"].grad, self._delta(step)
        assert grad is not None
        x_adv = projected_step(step.x + delta, grad, step.x, step.threat, self.step)
        delta.copy_(x_adv - step.x)

    def _delta(self, step: Step) -> Tensor:
        """The perturbations (B, C, H, W) that the last batch left; a short batch has the first B.

        The tensor is a view: writing into it is what carries a perturbation over.
        """
        return step.auxiliary(self, Carried).delta[: len(step.x)]


class Carried(nn.Module):
    """One perturbation (C, H, W) for each place in a batch, zero before training."""

    delta: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("delta", torch.zeros(shape))
