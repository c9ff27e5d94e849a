"""ResNet-18 (He et al., 2015), https://arxiv.org/abs/1512.03385.

The CIFAR variant that is common in adversarial training: a 3x3 stem of stride 1 without pooling,
and the four stages of the ImageNet network.
"""

from collections import OrderedDict
from dataclasses import dataclass

from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_cli.models import MODELS, Classifier, ModelConfig, Shape
from robustbench_cli.models._residual import shortcut, stage


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm; ReLU between them and after the sum."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + self.shortcut(x))


@MODELS.register("resnet-18", aliases=("resnet18",))
@dataclass(frozen=True, kw_only=True)
class ResNet18(ModelConfig):
    """3x3 stem, four stages of two post-activation blocks; 11,173,962 parameters on CIFAR-10."""

    width: PositiveInt = 64
    """Channels of the stem and the first stage; each later stage doubles them."""

    def build(self, shape: Shape) -> Classifier:
        w = self.width
        body = nn.Sequential(
            OrderedDict(
                stem=nn.Conv2d(shape.channels, w, 3, padding=1, bias=False),
                bn=nn.BatchNorm2d(w),
                relu=nn.ReLU(),
                stage1=stage(BasicBlock, w, w, stride=1, depth=2),
                stage2=stage(BasicBlock, w, 2 * w, stride=2, depth=2),
                stage3=stage(BasicBlock, 2 * w, 4 * w, stride=2, depth=2),
                stage4=stage(BasicBlock, 4 * w, 8 * w, stride=2, depth=2),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
            )
        )
        return Classifier(self.normalizer(shape), body, nn.Linear(8 * w, shape.classes))
