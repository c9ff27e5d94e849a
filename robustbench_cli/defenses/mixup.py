"""mixup (Zhang et al., 2018), https://arxiv.org/abs/1710.09412, applied before the attack as in
Rice et al. (2020), https://arxiv.org/abs/2002.11569."""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import stream_generator, stream_key
from robustbench_cli.core.registry import Number
from robustbench_cli.core.transfer import sent
from robustbench_cli.defenses import DEFENSES, Modifier, Recipe
from robustbench_cli.defenses._step import Step
from robustbench_cli.defenses.awp import AWP


@DEFENSES.register("mixup")
@dataclass(frozen=True, kw_only=True)
class Mixup(Modifier):
    """Mix each image and its label with another of the batch; attack and loss see the mixture.

    x <- s x + (1 - s) x', y <- s y + (1 - s) y', with s ~ Beta(alpha, alpha) drawn once per batch.
    The paper's CIFAR-10 runs take alpha 1, Rice et al.'s best adversarial training 1.4.
    """

    alpha: Annotated[Number, Field(ge=0)] = 1.0
    """Parameter of the Beta distribution; 0 leaves every image as it is."""

    unlabelled: ClassVar[bool] = False

    def check(self, recipe: Recipe, epochs: int) -> None:
        for part in recipe.parts:
            name = DEFENSES.name_of(part)
            if part.one_label:
                raise UserError(f"mixup: {name} needs one label per image, a mixture has two")
            if isinstance(part, AWP):
                raise UserError(f"mixup: {name}'s code refuses mixed labels; leave one of them out")

    def inputs(self, step: Step) -> Step:
        if self.alpha == 0:
            return step
        batch = step.noise.seed, "mixup", step.epoch, step.batch
        share = np.random.default_rng(abs(stream_key(*batch))).beta(self.alpha, self.alpha)
        order = torch.randperm(len(step.x), generator=stream_generator(*batch))
        other = sent(order, step.x.device)
        y = F.one_hot(step.y, step.classes).to(step.x)
        return replace(step, x=step.x[other].lerp(step.x, share), y=y[other].lerp(y, share))
