"""Margin-based triplet embedding regularisation (Zhong and Deng, 2019),
https://arxiv.org/abs/1909.09481."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor
from torch.linalg import vector_norm

from robustbench_cli.core.gradient_ascent import Start, Steps, StepSize, ascend
from robustbench_cli.core.registry import Number
from robustbench_cli.defenses import DEFENSES, Adversarial
from robustbench_cli.defenses._step import Passes, Step
from robustbench_cli.models.taps import EMBEDDING, embedding


@DEFENSES.register("mter")
@dataclass(frozen=True, kw_only=True)
class MTER(Adversarial):
    """The criterion on clean images, and features of images that were moved towards those of
    another class stay nearer to their own clean ones.

    Cross-entropy never sees a moved image: what is defended is the feature space (made for face
    recognition), so judge labels by attacks on labels.  Every image gets one of another class;
    the code splits the classes in two halves instead.  An image stops where it is near enough, in
    the code all stop with the last one.  The code's projection has no effect: eps 50/255 is
    what its 50 steps of 1/255 come to.  Its criterion has a smaller share of the loss, too: see
    ``variant``.
    """

    steps: Steps = 50
    step: StepSize = 1 / 50
    start: Start = "clean"
    near: Annotated[Number, Field(ge=0, le=2)] = 0.05
    """One minus the cosine with the other class's features at which an image stops, thd."""
    margin: Annotated[Number, Field(ge=0)] = 0.2
    """By how much nearer it must stay to its own features, alpha; features have length one."""
    weight: Annotated[Number, Field(ge=0)] = 1.0
    """Weight of the triplet term."""
    clean: Annotated[Number, Field(ge=0)] = 1.0
    """Weight of the mean criterion on both clean images."""
    variant: Literal["paper", "code"] = "paper"
    """Whether that mean counts whole (paper) or 4/9 of it: the code divides the sum over source
    and target by one and a half times the batch, moved images included (code)."""

    branches: ClassVar[int] = 2
    taps: ClassVar[tuple[str, ...]] = (EMBEDDING,)
    one_label: ClassVar[bool] = True

    def crafted(self, step: Step) -> Mapping[str, Tensor]:
        assert step.bank is not None
        rows = step.bank.other(step.y, step.noise.fork("target"))
        target = step.bank.images(rows).to(step.x)
        embed = partial(embedding, step.model)
        with torch.no_grad():
            wanted = embed(target)
        adv = ascend(embed, self.pull, wanted, step.x, step.threat, step.noise, self.climb)
        return {
            "adv": adv,
            "labels": step.bank.labels(rows),
            # One pass: BatchNorm sees all three together.
            "triplets": torch.cat([step.x, target, adv]),
        }

    def pull(self, found: Tensor, wanted: Tensor) -> Tensor:
        """How near (B) features are to those wanted; flat, and so at rest, once near enough."""
        return -(1 - F.cosine_similarity(found, wanted)).clamp(min=self.near)

    def hinge(self, source: Tensor, target: Tensor, adv: Tensor) -> Tensor:
        """The triplet term (B) of features (B, F)."""
        source, target, adv = (F.normalize(each) for each in (source, target, adv))
        nearer: Tensor = vector_norm(adv - target, dim=1) - vector_norm(adv - source, dim=1)
        return (self.margin - nearer).clamp(min=0)

    def loss(self, step: Step, logits: Passes) -> Tensor:
        source, target, _ = logits["triplets"].chunk(3)
        labels = step.criterion(source, step.y) + step.criterion(target, logits.inputs["labels"])
        triplet = self.hinge(*logits.features("triplets").chunk(3))
        clean = self.clean * (4 / 9 if self.variant == "code" else 1)
        return clean * labels / 2 + self.weight * triplet
