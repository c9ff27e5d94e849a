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
    """The criterion on clean images, and a triplet loss on features of images moved towards another
    class.

    With L2-normalised features e and, for each image x, a target image t of another class: x_adv
    ascends cos(e(x_adv), e(t)) from x, and the loss is mean(criterion(x), criterion(t)) + weight *
    max(0, ||e(x_adv) - e(x)|| - ||e(x_adv) - e(t)|| + margin).

    Cross-entropy never sees a moved image: the feature space is defended (the method was made for
    face recognition), so evaluate labels by attacks on labels.  Differences to the code: it splits
    the classes into two halves to choose targets; there all images of a batch stop with the last
    one, here each stops when it is near enough; its projection has no effect, and eps 50/255 is
    what its 50 steps of 1/255 come to; its criterion has a smaller weight, see ``variant``; the
    bias of its last layer has twice the learning rate and no weight decay, here it is a weight like
    the others.
    """

    steps: Steps = 50
    step: StepSize = 1 / 50
    start: Start = "clean"
    near: Annotated[Number, Field(ge=0, le=2)] = 0.05
    """An image stops once 1 - cos to the target's features is at most this, thd."""
    margin: Annotated[Number, Field(ge=0)] = 0.2
    """Margin of the triplet loss on features of norm one, alpha."""
    weight: Annotated[Number, Field(ge=0)] = 1.0
    """Weight of the triplet loss."""
    clean: Annotated[Number, Field(ge=0)] = 1.0
    """Weight of the mean criterion on the clean image and its target."""
    variant: Literal["paper", "code"] = "paper"
    """The mean criterion has its full weight (paper) or 4/9 of it (code): the code divides the sum
    over source and target by one and a half times the batch, moved images included."""

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
            # In one forward pass: BatchNorm's batch holds all three.
            "triplets": torch.cat([step.x, target, adv]),
        }

    def pull(self, found: Tensor, wanted: Tensor) -> Tensor:
        """Return minus one times the cosine distance (B) of features (B, F), which the inner attack
        maximises.

        It is constant, with a zero gradient, once the distance is at most ``near``.
        """
        return -(1 - F.cosine_similarity(found, wanted)).clamp(min=self.near)

    def hinge(self, source: Tensor, target: Tensor, adv: Tensor) -> Tensor:
        """Return the triplet loss (B) of source, target and adversarial features (B, F)."""
        source, target, adv = (F.normalize(each) for each in (source, target, adv))
        nearer: Tensor = vector_norm(adv - target, dim=1) - vector_norm(adv - source, dim=1)
        return (self.margin - nearer).clamp(min=0)

    def loss(self, step: Step, logits: Passes) -> Tensor:
        source, target, _ = logits["triplets"].chunk(3)
        labels = step.criterion(source, step.y) + step.criterion(target, logits.inputs["labels"])
        triplet = self.hinge(*logits.features("triplets").chunk(3))
        clean = self.clean * (4 / 9 if self.variant == "code" else 1)
        return clean * labels / 2 + self.weight * triplet
