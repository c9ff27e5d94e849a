"""ResNet with bottlenecks for 32x32 images (He et al., 2015), https://arxiv.org/abs/1512.03385.

With 18 blocks a stage it is what the code of PCL (Mustafa et al., 2019),
https://arxiv.org/abs/1904.00887, calls ResNet-110, counting as for blocks of two convolutions.
"""

from collections import OrderedDict
from dataclasses import dataclass

from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_cli.models import MODELS, Classifier, ModelConfig, Shape

EXPANSION = 4
"""Channels after a block, for each that its 3x3 convolution has."""


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with batch norm; the last ReLU comes after the sum."""

    def __init__(self, inputs: int, middle: int, stride: int) -> None:
        super().__init__()
        outputs = EXPANSION * middle
        self.conv1 = nn.Conv2d(inputs, middle, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut.append(nn.Conv2d(inputs, outputs, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return F.relu(self.bn3(self.conv3(out)) + self.shortcut(x))


@MODELS.register("resnet-110", aliases=("resnet110",))
@dataclass(frozen=True, kw_only=True)
class ResNet110(ModelConfig):
    """3x3 stem, three stages of 18 bottlenecks; 1,704,154 parameters on CIFAR-10."""

    blocks: PositiveInt = 18
    """Bottlenecks a stage."""
    width: PositiveInt = 16
    """Channels of the stem and of the first stage's 3x3 convolutions; each later stage doubles."""

    def build(self, shape: Shape) -> Classifier:
        w = self.width
        body = nn.Sequential(
            OrderedDict(
                stem=nn.Conv2d(shape.channels, w, 3, padding=1, bias=False),
                bn=nn.BatchNorm2d(w),
                relu=nn.ReLU(),
                stage1=self._stage(w, w, 1),
                stage2=self._stage(EXPANSION * w, 2 * w, 2),
                stage3=self._stage(EXPANSION * 2 * w, 4 * w, 2),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
            )
        )
        for module in body.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        head = nn.Linear(EXPANSION * 4 * w, shape.classes)
        return Classifier(self.normalizer(shape), body, head)

    def _stage(self, inputs: int, middle: int, stride: int) -> nn.Sequential:
        later = [Bottleneck(EXPANSION * middle, middle, 1) for _ in range(self.blocks - 1)]
        return nn.Sequential(Bottleneck(inputs, middle, stride), *later)
