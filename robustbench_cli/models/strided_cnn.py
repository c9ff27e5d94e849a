"""Small strided network (Wong and Kolter, 2018), https://arxiv.org/abs/1711.00851.

Wong, Rice & Kolter (2020), https://arxiv.org/abs/2001.03994, train it on MNIST with Fast-AT.
"""

from collections import OrderedDict
from dataclasses import dataclass

from pydantic import PositiveInt
from torch import nn

from robustbench_cli.models import MODELS, Classifier, ModelConfig, Shape
from robustbench_cli.models._thin import ThinConv2d

_MIN_SIDE = 4
"""Smallest side of an image, in pixels, that leaves a pixel after both convolutions."""


@MODELS.register("strided-cnn")
@dataclass(frozen=True, kw_only=True)
class StridedCNN(ModelConfig):
    """Two 4x4 convolutions of stride 2 and two fully connected layers; cheap to attack."""

    width: PositiveInt = 16
    """Channels of the first convolution; the second has twice as many."""
    hidden: PositiveInt = 100
    """Units of the first fully connected layer."""

    def build(self, shape: Shape) -> Classifier:
        self.at_least(_MIN_SIDE, shape)
        pixels = (shape.height // 4) * (shape.width // 4)
        body = nn.Sequential(
            OrderedDict(
                conv1=ThinConv2d(shape.channels, self.width, 4, stride=2, padding=1),
                relu1=nn.ReLU(),
                conv2=nn.Conv2d(self.width, 2 * self.width, 4, stride=2, padding=1),
                relu2=nn.ReLU(),
                flatten=nn.Flatten(),
                fc1=nn.Linear(2 * self.width * pixels, self.hidden),
                relu3=nn.ReLU(),
            )
        )
        return Classifier(self.normalizer(shape), body, nn.Linear(self.hidden, shape.classes))
