"""Base classifiers of randomized ablation (Levine & Feizi, 2020),
https://arxiv.org/abs/1911.09272."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.image_parts import random_pixels
from robustbench_cli.defenses import DEFENSES
from robustbench_cli.defenses._seen_parts import SeenParts
from robustbench_cli.defenses._step import Step
from robustbench_cli.models import Classifier, Shape


@DEFENSES.register("ablation-training")
@dataclass(frozen=True, kw_only=True)
class AblationTraining(SeenParts):
    """The criterion on images of which few random pixels are seen; certify it with ``ablation``.

    The default is the paper's for MNIST; it keeps 75 pixels on CIFAR-10 and 2000 on ImageNet.  The
    official code shows the same pixels of all images of a batch; here each image has its own, which
    do not depend on the others.  The radius of the threat is not used.
    """

    keep: Annotated[int, Field(ge=1)] = 45
    """Number of pixels that are seen; certify with the same one."""

    @property
    def shows(self) -> str:
        return f"{self.keep} pixels"

    def network(self, build: Callable[[Shape], Classifier], shape: Shape) -> Classifier:
        if self.keep > (pixels := shape.height * shape.width):
            raise UserError(f"ablation-training:keep={self.keep}: images have {pixels} pixels")
        return super().network(build, shape)

    def seen(self, step: Step) -> Tensor:
        return random_pixels(step.x, step.noise.fork("seen"), self.keep)
