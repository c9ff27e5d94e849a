"""Networks of IBP training (Gowal et al., 2018), https://arxiv.org/abs/1810.12715, table 1.

Convolutions, linear layers and ReLU, nothing else, so that bounds are cheap.  On CIFAR-10 they have
471 thousand, 1.2 and 17 million parameters.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from robustbench_cli.models import MODELS, Classifier, ModelConfig, Shape
from robustbench_cli.models._thin import ThinConv2d


class _Conv(NamedTuple):
    """A convolution, followed by ReLU."""

    channels: int
    kernel: int
    stride: int
    padding: int = 0

    def side(self, side: int) -> int:
        """Return the side of what comes out, in pixels, for that of what goes in."""
        return (side + 2 * self.padding - self.kernel) // self.stride + 1


@MODELS.register("ibp-small")
@dataclass(frozen=True, kw_only=True)
class IBPSmall(ModelConfig):
    """Two 4x4 convolutions of 16 and 32 channels, the first of stride 2, and 100 hidden units."""

    def build(self, shape: Shape) -> Classifier:
        self.at_least(10, shape)
        return _net(self, shape, (_Conv(16, 4, 2), _Conv(32, 4, 1)), (100,))


@MODELS.register("ibp-medium")
@dataclass(frozen=True, kw_only=True)
class IBPMedium(ModelConfig):
    """Four convolutions of 32, 32, 64 and 64 channels, and twice 512 hidden units."""

    def build(self, shape: Shape) -> Classifier:
        self.at_least(16, shape)
        convolutions = _Conv(32, 3, 1), _Conv(32, 4, 2), _Conv(64, 3, 1), _Conv(64, 4, 2)
        return _net(self, shape, convolutions, (512, 512))


@MODELS.register("ibp-large")
@dataclass(frozen=True, kw_only=True)
class IBPLarge(ModelConfig):
    """Five 3x3 convolutions of 64, 64 and thrice 128 channels, and 512 hidden units.

    A pixel of padding on all sides; TensorFlow's SAME, which the authors' code has, pads the
    convolution of stride 2 on two sides only.
    """

    def build(self, shape: Shape) -> Classifier:
        self.at_least(1, shape)
        convolutions = (
            _Conv(64, 3, 1, 1),
            _Conv(64, 3, 1, 1),
            _Conv(128, 3, 2, 1),
            _Conv(128, 3, 1, 1),
            _Conv(128, 3, 1, 1),
        )
        return _net(self, shape, convolutions, (512,))


def _net(
    config: ModelConfig, shape: Shape, convolutions: tuple[_Conv, ...], hidden: tuple[int, ...]
) -> Classifier:
    """Return a network with these convolutions and hidden layers, each followed by ReLU."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels, height, width = shape.channels, shape.height, shape.width
    for i, conv in enumerate(convolutions, 1):
        kind = nn.Conv2d if layers else ThinConv2d
        layers[f"conv{i}"] = kind(
            channels, conv.channels, conv.kernel, stride=conv.stride, padding=conv.padding
        )
        layers[f"relu{i}"] = nn.ReLU()
        channels, height, width = conv.channels, conv.side(height), conv.side(width)
    layers["flatten"] = nn.Flatten()
    features = channels * height * width
    for i, units in enumerate(hidden, 1):
        layers[f"fc{i}"] = nn.Linear(features, units)
        layers[f"fc_relu{i}"] = nn.ReLU()
        features = units
    return Classifier(
        config.normalizer(shape), nn.Sequential(layers), nn.Linear(features, shape.classes)
    )
