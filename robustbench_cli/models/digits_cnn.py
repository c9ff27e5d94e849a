"""Small batch-normalised network for the 8x8 digits of scikit-learn, which trains in seconds on a
CPU.

Three VGG-style layers (Simonyan and Zisserman, 2015), https://arxiv.org/abs/1409.1556.
"""

from collections import OrderedDict
from dataclasses import dataclass

from pydantic import PositiveInt
from torch import nn

from robustbench_cli.models import MODELS, Classifier, ModelConfig, Shape


@MODELS.register("digits-cnn")
@dataclass(frozen=True, kw_only=True)
class DigitsCNN(ModelConfig):
    """Three 3x3 convolutions and one max-pooling; the head reads the flattened feature map."""

    width: PositiveInt = 16
    """Channels of the first layer; the other two have twice as many."""

    def build(self, shape: Shape) -> Classifier:
        self.at_least(2, shape)
        narrow, wide = self.width, 2 * self.width
        body = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(shape.channels, narrow, 3, padding=1, bias=False),
                bn1=nn.BatchNorm2d(narrow),
                relu1=nn.ReLU(),
                conv2=nn.Conv2d(narrow, wide, 3, padding=1, bias=False),
                bn2=nn.BatchNorm2d(wide),
                relu2=nn.ReLU(),
                pool=nn.MaxPool2d(2),
                conv3=nn.Conv2d(wide, wide, 3, padding=1, bias=False),
                bn3=nn.BatchNorm2d(wide),
                relu3=nn.ReLU(),
                flatten=nn.Flatten(),
            )
        )
        head = nn.Linear(wide * (shape.height // 2) * (shape.width // 2), shape.classes)
        return Classifier(self.normalizer(shape), body, head)
