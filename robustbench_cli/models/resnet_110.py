"""ResNet-110 with bottlenecks for 32x32 images (He et al., 2015), https://arxiv.org/abs/1512.03385.

With 18 blocks per stage this is the network that the code of PCL (Mustafa et al., 2019),
https://arxiv.org/abs/1904.00887, calls ResNet-110; the name counts layers as for blocks of two
convolutions.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_cli.models import MODELS, Classifier, ModelConfig, Shape
from robustbench_cli.models._dense_head import wider_head
from robustbench_cli.models._residual import initialise, shortcut, stage

EXPANSION = 4
"""Ratio of a block's output channels to those of its 3x3 convolution."""


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with batch norm; the last ReLU follows the sum."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        middle = outputs // EXPANSION
        self.conv1 = nn.Conv2d(inputs, middle, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return F.relu(self.bn3(self.conv3(out)) + self.shortcut(x))


@MODELS.register("resnet-110", aliases=("resnet110",))
@dataclass(frozen=True, kw_only=True)
class ResNet110(ModelConfig):
    """3x3 stem, three stages of 18 bottlenecks; 1,704,154 parameters on CIFAR-10."""

    blocks: PositiveInt = 18
    """Bottlenecks per stage."""
    width: PositiveInt = 16
    """Channels of the stem and of the first stage's 3x3 convolutions; each later stage doubles
    them."""
    dense: Annotated[int, Field(ge=0)] = 0
    """Width of a linear layer before the last one, without a nonlinearity between them, as in PCL's
    code (1024); 0: there is none."""

    omitted_at_default: ClassVar[tuple[str, ...]] = ("dense",)

    def build(self, shape: Shape) -> Classifier:
        w, wide, depth = self.width, EXPANSION * self.width, self.blocks
        body = nn.Sequential(
            OrderedDict(
                stem=nn.Conv2d(shape.channels, w, 3, padding=1, bias=False),
                bn=nn.BatchNorm2d(w),
                relu=nn.ReLU(),
                stage1=stage(Bottleneck, w, wide, stride=1, depth=depth),
                stage2=stage(Bottleneck, wide, 2 * wide, stride=2, depth=depth),
                stage3=stage(Bottleneck, 2 * wide, 4 * wide, stride=2, depth=depth),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
            )
        )
        initialise(body)
        linear = nn.Linear(4 * wide, shape.classes)
        head = wider_head(linear, self.dense) if self.dense else linear
        return Classifier(self.normalizer(shape), body, head)
