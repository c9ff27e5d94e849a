"""VGG-16 (Simonyan and Zisserman, 2015), https://arxiv.org/abs/1409.1556.

The variant for 32x32 images in AMP's code (Zheng et al., 2021), https://arxiv.org/abs/2010.04925:
with batch norm, and two linear layers of 4,096 units before the last.
"""

from dataclasses import dataclass

from pydantic import PositiveInt
from torch import nn

from robustbench_cli.models import MODELS, Classifier, ModelConfig, Shape

STAGES = ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8))
"""Channels of the convolutions of each stage, in multiples of ``width``."""
_MIN_SIDE = 2 ** len(STAGES)
"""Smallest side of an image, in pixels, that leaves a pixel after five poolings."""


@MODELS.register("vgg-16", aliases=("vgg16",))
@dataclass(frozen=True, kw_only=True)
class VGG16(ModelConfig):
    """Five stages of 3x3 convolutions, each with max-pooling; 33,646,666 parameters on CIFAR-10."""

    width: PositiveInt = 64
    """Channels of the first stage."""
    hidden: PositiveInt = 4096
    """Units of the two linear layers before the last."""

    def build(self, shape: Shape) -> Classifier:
        self.at_least(_MIN_SIDE, shape)
        layers: list[nn.Module] = []
        channels = shape.channels
        for stage in STAGES:
            for multiple in stage:
                layers += _convolution(channels, multiple * self.width)
                channels = multiple * self.width
            layers.append(nn.MaxPool2d(2))
        pixels = shape.height // _MIN_SIDE * (shape.width // _MIN_SIDE)
        first, second = (nn.Linear(n, self.hidden) for n in (channels * pixels, self.hidden))
        layers += [nn.Flatten(), first, nn.ReLU(), second, nn.ReLU()]
        head = nn.Linear(self.hidden, shape.classes)
        for linear in (first, second, head):
            nn.init.zeros_(linear.bias)
        return Classifier(self.normalizer(shape), nn.Sequential(*layers), head)


def _convolution(inputs: int, outputs: int) -> list[nn.Module]:
    """Return a 3x3 convolution with He initialisation, batch norm and ReLU."""
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
