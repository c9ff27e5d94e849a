"""LeNet-5 (LeCun et al., 1998), https://doi.org/10.1109/5.726791.

With ReLU and max-pooling, as Chen et al. (2019), https://arxiv.org/abs/1903.09799, train it; and
the wider one of Caffe's examples, as Jeong and Shin (2020), https://arxiv.org/abs/2006.04062, do.
"""

from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from robustbench_cli.models import MODELS, Classifier, ModelConfig, Shape
from robustbench_cli.models._thin import ThinConv2d

_MIN_SIDE = 12
"""Smallest side of an image, in pixels, that leaves a pixel after the poolings."""
_CAFFE_MIN_SIDE = 16
"""The same without padding."""


@MODELS.register("lenet-5", aliases=("lenet5", "lenet"))
@dataclass(frozen=True, kw_only=True)
class LeNet5(ModelConfig):
    """Two 5x5 convolutions, each pooled, and three linear layers; 61,706 parameters on MNIST."""

    def build(self, shape: Shape) -> Classifier:
        self.at_least(_MIN_SIDE, shape)
        pixels = (shape.height // 2 - 4) // 2 * ((shape.width // 2 - 4) // 2)
        body = nn.Sequential(
            OrderedDict(
                conv1=ThinConv2d(shape.channels, 6, 5, padding=2),
                relu1=nn.ReLU(),
                pool1=nn.MaxPool2d(2),
                conv2=nn.Conv2d(6, 16, 5),
                relu2=nn.ReLU(),
                pool2=nn.MaxPool2d(2),
                flatten=nn.Flatten(),
                fc1=nn.Linear(16 * pixels, 120),
                relu3=nn.ReLU(),
                fc2=nn.Linear(120, 84),
                relu4=nn.ReLU(),
            )
        )
        return Classifier(self.normalizer(shape), body, nn.Linear(84, shape.classes))


@MODELS.register("lenet-caffe")
@dataclass(frozen=True, kw_only=True)
class LeNetCaffe(ModelConfig):
    """Two 5x5 convolutions, each pooled, and 500 hidden units; 431,080 parameters on MNIST."""

    def build(self, shape: Shape) -> Classifier:
        self.at_least(_CAFFE_MIN_SIDE, shape)
        height, width = (((side - 4) // 2 - 4) // 2 for side in (shape.height, shape.width))
        body = nn.Sequential(
            OrderedDict(
                conv1=ThinConv2d(shape.channels, 20, 5),
                relu1=nn.ReLU(),
                pool1=nn.MaxPool2d(2),
                conv2=nn.Conv2d(20, 50, 5),
                relu2=nn.ReLU(),
                pool2=nn.MaxPool2d(2),
                flatten=nn.Flatten(),
                fc1=nn.Linear(50 * height * width, 500),
                relu3=nn.ReLU(),
            )
        )
        return Classifier(self.normalizer(shape), body, nn.Linear(500, shape.classes))
