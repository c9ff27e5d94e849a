"""Pre-activation ResNet-18 (He et al., 2016), https://arxiv.org/abs/1603.05027.

The CIFAR variant of the study of robust overfitting (Rice et al., 2020,
https://arxiv.org/abs/2002.11569) and, with another shortcut, of Fast-AT (Wong et al., 2020,
https://arxiv.org/abs/2001.03994).
"""

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_cli.models import MODELS, Classifier, ModelConfig, Shape
from robustbench_cli.models._residual import stage

ShortcutSource = Literal["activated", "input"]


class PreActBlock(nn.Module):
    """Two 3x3 convolutions, each after batch norm and ReLU, with a shortcut.

    Where stride or channels change the shape, the shortcut is a 1x1 convolution, of the activated
    input or of the input as it is.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        dropout: float = 0.0,
        source: ShortcutSource = "activated",
    ) -> None:
        super().__init__()
        self.source = source
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.drop = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = (
            nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            if stride != 1 or inputs != outputs
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        seen = active if self.source == "activated" else x
        around: Tensor = x if self.shortcut is None else self.shortcut(seen)
        inner: Tensor = self.conv2(self.drop(F.relu(self.bn2(self.conv1(active)))))
        return inner + around


@MODELS.register("preact-resnet-18", aliases=("preactresnet18", "preact-resnet18"))
@dataclass(frozen=True, kw_only=True)
class PreActResNet18(ModelConfig):
    """3x3 stem without batch norm, four stages of two blocks; 11,172,170 parameters on CIFAR-10.

    The net of Rice et al. and of AWP's code.  That of Fast-AT and of its Free-AT is
    ``shortcut=input``: weights of either load into the other without a word, and give other logits.
    """

    width: PositiveInt = 64
    """Channels of the stem and the first stage; each later stage doubles them."""
    shortcut: ShortcutSource = "activated"
    """The input of a 1x1 shortcut: the block's input after batch norm and ReLU (activated), or the
    block's input itself (input, as in Fast-AT's code)."""

    omitted_at_default: ClassVar[tuple[str, ...]] = ("shortcut",)

    def build(self, shape: Shape) -> Classifier:
        w, block = self.width, partial(PreActBlock, source=self.shortcut)
        body = nn.Sequential(
            OrderedDict(
                stem=nn.Conv2d(shape.channels, w, 3, padding=1, bias=False),
                stage1=stage(block, w, w, stride=1, depth=2),
                stage2=stage(block, w, 2 * w, stride=2, depth=2),
                stage3=stage(block, 2 * w, 4 * w, stride=2, depth=2),
                stage4=stage(block, 4 * w, 8 * w, stride=2, depth=2),
                bn=nn.BatchNorm2d(8 * w),
                relu=nn.ReLU(),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
            )
        )
        return Classifier(self.normalizer(shape), body, nn.Linear(8 * w, shape.classes))
