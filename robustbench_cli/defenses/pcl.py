"""Prototype conformity loss (Mustafa et al., 2019), https://arxiv.org/abs/1904.00887."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from robustbench_cli.core.example_rng import stream_generator
from robustbench_cli.core.gradient_ascent import Ascent, ascend
from robustbench_cli.core.losses import cross_entropy
from robustbench_cli.core.registry import Number
from robustbench_cli.defenses import DEFENSES, Objective
from robustbench_cli.defenses._prototypes import (
    Prototypes,
    distance_to_others,
    distance_to_own,
    widen_head,
)
from robustbench_cli.defenses._step import Passes, Setting, Step
from robustbench_cli.models import Classifier
from robustbench_cli.models.taps import EMBEDDING


@DEFENSES.register("pcl")
@dataclass(frozen=True, kw_only=True)
class PCL(Objective):
    """The criterion, plus distances to a prototype of the own class, minus distances to the
    others'.

    criterion(f(x), y) + sum over two layers of [attract ||e - near_y||^2 - repel mean_{k != y} ||e
    - far_k||^2], with e the features that a wide linear layer before the last one reads, and those
    that it gives.  Prototypes are trained by SGD of their own.  The code has two sets of them, the
    paper one; the paper's loss, ``variant=paper,repel=1``, has no lower bound: training stops where
    it overflows.

    This does not make a network robust: AutoAttack leaves 0.28 %.  Start from a trained network, as
    the authors do: ``--init``.  Theirs has the wide layer from the beginning, as
    ``resnet-110:dense=1024`` does, which is kept as it was trained; in any other net it is new and
    drawn at random.
    """

    attract: Annotated[Number, Field(ge=0)] = 1.0
    """Weight of the squared distance to the own class's prototype."""
    repel: Annotated[Number, Field(gt=0)] = 1e-4
    """Weight of the mean squared distance to the others'; 1e-5 in the adversarial variants."""
    near_lr: Annotated[Number, Field(gt=0)] = 0.5
    """Learning rate of the attracting prototypes, for their distance without its weight: plain SGD,
    whatever trains the model."""
    far_lr: Annotated[Number, Field(gt=0)] = 1e-4
    """Learning rate of the repelling prototypes, for their distance without its weight."""
    dim: PositiveInt = 1024
    """Width of the linear layer before the last."""
    variant: Literal["code", "paper"] = "code"
    """Two sets of prototypes (code), or one whose members repel each other, too (paper)."""
    adversarial: Literal["none", "fgsm", "pgd"] = "none"
    """Attack whose images join the clean ones of each batch: none, or fgsm or pgd (10 steps) with a
    radius drawn once per batch, between 51/80 and 51/32 of eps."""

    taps: ClassVar[tuple[str, ...]] = (EMBEDDING, "head.dense")
    one_label: ClassVar[bool] = True

    def prepare(self, model: Classifier) -> Classifier:
        return widen_head(model, self.dim)

    def auxiliary(self, setting: Setting) -> nn.Module:
        return Prototypes(setting.model.head)

    def groups(self, auxiliary: nn.Module) -> list[dict[str, object]]:
        return []  # the prototypes have SGD of their own: see ``after_backward``

    def crafted(self, step: Step) -> Mapping[str, Tensor]:
        if self.adversarial == "none":
            return {}
        batch = stream_generator(step.noise.seed, "pcl", step.epoch, step.batch)
        # At eps 8/255 this is a radius between 0.02 and 0.05, with PGD steps of 2/255.
        share = torch.empty(()).uniform_(51 / 80, 51 / 32, generator=batch).item()
        threat = replace(step.threat, eps=share * step.threat.eps)
        steps, size = (1, 1.0) if self.adversarial == "fgsm" else (10, 0.25 / share)
        climb = Ascent(steps=steps, step=size, start="clean")
        adv = ascend(step.model, cross_entropy, step.y, step.x, threat, step.noise, climb)
        return {"both": torch.cat([step.x, adv])}

    def conformity(self, features: Tensor, near: Tensor, far: Tensor, y: Tensor) -> Tensor:
        """Return the prototype conformity loss (B) at one layer.

        Args:
            features: (B, F).
            near: attracting prototypes (classes, F).
            far: repelling prototypes (classes, F); variant "paper" uses ``near`` in their place.
            y: labels (B).
        """
        if self.variant == "code":
            away = distance_to_others(features, far, y)
        else:
            away = distance_to_others(features, near, y) + distance_to_others(near[y], near, y)
        return self.attract * distance_to_own(features, near, y) - self.repel * away

    def loss(self, step: Step, logits: Passes) -> Tensor:
        name, copies = ("clean", 1) if self.adversarial == "none" else ("both", 2)
        y, known = step.y.repeat(copies), step.auxiliary(self, Prototypes)
        total = step.criterion(logits[name], y)
        for tap, near, far in zip(self.taps, known.near, known.far, strict=True):
            total = total + self.conformity(logits.features(name, tap), near, far, y)
        return total.view(copies, -1).mean(0)

    def after_backward(self, step: Step, inputs: Mapping[str, Tensor]) -> None:
        # As in the code, the weights of the two distances change nothing for the prototypes.  With
        # ``attract=0`` there is no gradient that a rate could be for.
        near = self.near_lr / (self.attract or 1.0)
        step.auxiliary(self, Prototypes).move(near, self.far_lr / self.repel)
