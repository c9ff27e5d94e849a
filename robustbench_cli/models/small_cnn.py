"""Small MNIST network (Carlini and Wagner, 2017), https://arxiv.org/abs/1608.04644.

The network of their appendix in the form that TRADES trains (Zhang et al., 2019, "SmallCNN"),
https://github.com/yaodongyu/TRADES.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import nn

from robustbench_cli.core.registry import Number
from robustbench_cli.models import MODELS, Classifier, ModelConfig, Shape
from robustbench_cli.models._thin import ThinConv2d

_MIN_SIDE = 16
"""Smallest side of an image, in pixels, that leaves a pixel after all layers."""


@MODELS.register("small-cnn")
@dataclass(frozen=True, kw_only=True)
class SmallCNN(ModelConfig):
    """Four convolutions and three fully connected layers; 312,202 parameters on MNIST."""

    dropout: Annotated[Number, Field(ge=0, lt=1)] = 0.5
    """Probability of dropping a unit of the first fully connected layer."""

    def build(self, shape: Shape) -> Classifier:
        self.at_least(_MIN_SIDE, shape)
        height, width = _side_after_poolings(shape.height), _side_after_poolings(shape.width)
        body = nn.Sequential(
            OrderedDict(
                conv1=ThinConv2d(shape.channels, 32, 3),
                relu1=nn.ReLU(),
                conv2=nn.Conv2d(32, 32, 3),
                relu2=nn.ReLU(),
                pool1=nn.MaxPool2d(2),
                conv3=nn.Conv2d(32, 64, 3),
                relu3=nn.ReLU(),
                conv4=nn.Conv2d(64, 64, 3),
                relu4=nn.ReLU(),
                pool2=nn.MaxPool2d(2),
                flatten=nn.Flatten(),
                fc1=nn.Linear(64 * height * width, 200),
                relu5=nn.ReLU(),
                drop=nn.Dropout(self.dropout),
                fc2=nn.Linear(200, 200),
                relu6=nn.ReLU(),
            )
        )
        head = nn.Linear(200, shape.classes)
        for layer in body:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        # As in the official code: every image starts with uniform predictions.
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        return Classifier(self.normalizer(shape), body, head)


def _side_after_poolings(side: int) -> int:
    """Return the side, in pixels, after two blocks of two 3x3 convolutions and a pooling."""
    for _ in range(2):
        side = (side - 4) // 2
    return side
