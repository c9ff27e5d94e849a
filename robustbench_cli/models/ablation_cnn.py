"""The network that Levine & Feizi (2020), https://arxiv.org/abs/1911.09272, train on MNIST.

They use it for patches, too (https://arxiv.org/abs/2002.10733).
"""

from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from robustbench_cli.models import MODELS, Classifier, ModelConfig, Shape
from robustbench_cli.models._thin import ThinConv2d

_MIN_SIDE = 4
"""Smallest side of an image, in pixels, that leaves a pixel after both convolutions."""


@MODELS.register("ablation-cnn")
@dataclass(frozen=True, kw_only=True)
class AblationCNN(ModelConfig):
    """Two 4x4 convolutions of stride 2 and three fully connected layers."""

    def build(self, shape: Shape) -> Classifier:
        self.at_least(_MIN_SIDE, shape)
        pixels = (shape.height // 4) * (shape.width // 4)
        body = nn.Sequential(
            OrderedDict(
                conv1=ThinConv2d(shape.channels, 64, 4, stride=2, padding=1),
                relu1=nn.ReLU(),
                conv2=nn.Conv2d(64, 128, 4, stride=2, padding=1),
                relu2=nn.ReLU(),
                flatten=nn.Flatten(),
                fc1=nn.Linear(128 * pixels, 500),
                relu3=nn.ReLU(),
                fc2=nn.Linear(500, 100),
                relu4=nn.ReLU(),
            )
        )
        return Classifier(self.normalizer(shape), body, nn.Linear(100, shape.classes))
