"""ResNet for 32x32 images (He et al., 2015), https://arxiv.org/abs/1512.03385, section 4.2.

With 1x1 convolutions in the shortcuts, as Cohen et al. (2019), https://arxiv.org/abs/1902.02918,
certify it on CIFAR-10.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import nn

from robustbench_cli.core.errors import UserError
from robustbench_cli.models import MODELS, Classifier, ModelConfig, Shape
from robustbench_cli.models._residual import initialise, stage
from robustbench_cli.models.resnet import BasicBlock


@MODELS.register("cifar-resnet", pattern=r"cifar-resnet-(?P<depth>\d+)")
@dataclass(frozen=True, kw_only=True)
class CifarResNet(ModelConfig):
    """3x3 stem of 16 channels, three stages of post-activation blocks; 1,730,714 parameters with
    110 layers."""

    depth: Annotated[int, Field(ge=8)] = 110
    """Layers, 6 n + 2 for n blocks per stage: 20, 56, 110."""

    def build(self, shape: Shape) -> Classifier:
        blocks, rest = divmod(self.depth - 2, 6)
        if rest:
            raise UserError(f"cifar-resnet:depth={self.depth}: use 6 n + 2, such as 20, 56 or 110")
        body = nn.Sequential(
            OrderedDict(
                stem=nn.Conv2d(shape.channels, 16, 3, padding=1, bias=False),
                bn=nn.BatchNorm2d(16),
                relu=nn.ReLU(),
                stage1=stage(BasicBlock, 16, 16, stride=1, depth=blocks),
                stage2=stage(BasicBlock, 16, 32, stride=2, depth=blocks),
                stage3=stage(BasicBlock, 32, 64, stride=2, depth=blocks),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
            )
        )
        initialise(body)
        return Classifier(self.normalizer(shape), body, nn.Linear(64, shape.classes))
