"""Small MNIST network of PyTorch's examples (PyTorch, 2017), https://github.com/pytorch/examples.

TRADES' code has it for digits, too (Zhang et al., 2019, ``net_mnist.py``),
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


@MODELS.register("mnist-cnn")
@dataclass(frozen=True, kw_only=True)
class MNISTCNN(ModelConfig):
    """Two 5x5 convolutions, 10 and 20 channels, and two linear layers; 21,840 parameters on MNIST.

    Dropout acts on whole channels of the second convolution and on the hidden units.
    """

    dropout: Annotated[Number, Field(ge=0, lt=1)] = 0.5
    """Probability of dropping a channel, or a hidden unit."""

    def build(self, shape: Shape) -> Classifier:
        self.at_least(_MIN_SIDE, shape)
        height, width = (((side - 4) // 2 - 4) // 2 for side in (shape.height, shape.width))
        body = nn.Sequential(
            OrderedDict(
                conv1=ThinConv2d(shape.channels, 10, 5),
                pool1=nn.MaxPool2d(2),
                relu1=nn.ReLU(),
                conv2=nn.Conv2d(10, 20, 5),
                drop2=nn.Dropout2d(self.dropout),
                pool2=nn.MaxPool2d(2),
                relu2=nn.ReLU(),
                flatten=nn.Flatten(),
                fc1=nn.Linear(20 * height * width, 50),
                relu3=nn.ReLU(),
                drop3=nn.Dropout(self.dropout),
            )
        )
        return Classifier(self.normalizer(shape), body, nn.Linear(50, shape.classes))
