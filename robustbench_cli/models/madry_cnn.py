"""Network of the MNIST challenge (Madry et al., 2018), https://arxiv.org/abs/1706.06083.

Layer sizes are those of https://github.com/MadryLab/mnist_challenge.
"""

from collections import OrderedDict
from dataclasses import dataclass

from pydantic import PositiveInt
from torch import nn

from robustbench_cli.models import MODELS, Classifier, ModelConfig, Shape
from robustbench_cli.models._thin import ThinConv2d

_MIN_SIDE = 4
"""Smallest side of an image, in pixels, that leaves a pixel after the poolings."""


@MODELS.register("madry-cnn", aliases=("c2f2",))
@dataclass(frozen=True, kw_only=True)
class MadryCNN(ModelConfig):
    """Two 5x5 convolutions, each with max-pooling, and two fully connected layers.

    Metric learning calls it C2F2, its last layer giving the embedding.
    Initialised as PyTorch does; the challenge's own start, normal with std 0.1, saturates the
    logits.
    """

    hidden: PositiveInt = 1024
    """Units of the first fully connected layer."""

    def build(self, shape: Shape) -> Classifier:
        self.at_least(_MIN_SIDE, shape)
        pixels = (shape.height // 4) * (shape.width // 4)
        body = nn.Sequential(
            OrderedDict(
                conv1=ThinConv2d(shape.channels, 32, 5, padding=2),
                relu1=nn.ReLU(),
                pool1=nn.MaxPool2d(2),
                conv2=nn.Conv2d(32, 64, 5, padding=2),
                relu2=nn.ReLU(),
                pool2=nn.MaxPool2d(2),
                flatten=nn.Flatten(),
                fc1=nn.Linear(64 * pixels, self.hidden),
                relu3=nn.ReLU(),
            )
        )
        return Classifier(self.normalizer(shape), body, nn.Linear(self.hidden, shape.classes))
