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
    own,
    widen_head,
)
from robustbench_cli.defenses._step import Passes, Setting, Step
from robustbench_cli.models import Classifier
from robustbench_cli.models.taps import EMBEDDING


@DEFENSES.register("pcl")
@dataclass(frozen=True, kw_only=True)
class PCL(Objective):
    """The criterion, and features near a prototype of their class, far from those of others.

    This does not make a net robust: AutoAttack leaves 0.28 %.  A wide layer without a nonlinearity
    comes before the last; features are what it reads and what it gives.  The code has two sets of
    prototypes, to be near to and to be far from, the paper one.  The paper's loss,
    ``variant=paper,repel=1``, has no lower bound: training stops where it overflows.  Begin with a
    trained net, as they do: ``--init``.
    """

    attract: Annotated[Number, Field(ge=0)] = 1.0
    """Weight of the squared distance to the own class's prototype."""
    repel: Annotated[Number, Field(gt=0)] = 1e-4
    """Weight of the mean squared distance to other classes' prototypes; 1e-5 where adversarial."""
    near_lr: Annotated[Number, Field(gt=0)] = 0.5
    """Rate of the prototypes to be near to: plain steps, whatever optimiser moves the model."""
    far_lr: Annotated[Number, Field(gt=0)] = 1e-4
    """Rate of the prototypes to be far from, on their distance without its weight."""
    dim: PositiveInt = 1024
    """Width of the layer before the last."""
    variant: Literal["code", "paper"] = "code"
    """Two sets (code), or one, which are also far from each other (paper)."""
    adversarial: Literal["none", "fgsm", "pgd"] = "none"
    """What joins the clean images in each batch; each batch has a radius of its own."""

    taps: ClassVar[tuple[str, ...]] = (EMBEDDING, "head.dense")
    one_label: ClassVar[bool] = True

    def prepare(self, model: Classifier) -> Classifier:
        return widen_head(model, self.dim)

    def auxiliary(self, setting: Setting) -> nn.Module:
        return Prototypes(setting.model.head)

    def groups(self, auxiliary: nn.Module) -> list[dict[str, object]]:
        return []  # the optimiser has none of them: see ``learned``

    def crafted(self, step: Step) -> Mapping[str, Tensor]:
        if self.adversarial == "none":
            return {}
        batch = stream_generator(step.noise.seed, "pcl", step.epoch, step.batch)
        # Where eps is 8/255: a radius between 0.02 and 0.05, and steps of 2/255.
        share = torch.empty(()).uniform_(51 / 80, 51 / 32, generator=batch).item()
        threat = replace(step.threat, eps=share * step.threat.eps)
        steps, size = (1, 1.0) if self.adversarial == "fgsm" else (10, 0.25 / share)
        climb = Ascent(steps=steps, step=size, start="clean")
        adv = ascend(step.model, cross_entropy, step.y, step.x, threat, step.noise, climb)
        return {"both": torch.cat([step.x, adv])}

    def conformity(self, features: Tensor, near: Tensor, far: Tensor, y: Tensor) -> Tensor:
        """The loss (B) of features (B, F) at one layer."""
        if self.variant == "code":
            away = distance_to_others(features, far, y)
        else:
            away = distance_to_others(features, near, y) + distance_to_others(near[y], near, y)
        return self.attract * own(features, near, y) - self.repel * away

    def loss(self, step: Step, logits: Passes) -> Tensor:
        name, copies = ("clean", 1) if self.adversarial == "none" else ("both", 2)
        y, known = step.y.repeat(copies), step.auxiliary(self, Prototypes)
        total = step.criterion(logits[name], y)
        for tap, near, far in zip(self.taps, known.near, known.far, strict=True):
            total = total + self.conformity(logits.features(name, tap), near, far, y)
        return total.view(copies, -1).mean(0)

    def after_backward(self, step: Step, inputs: Mapping[str, Tensor]) -> None:
        step.auxiliary(self, Prototypes).move(self.near_lr, self.far_lr / self.repel)
