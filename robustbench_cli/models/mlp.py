"""Fully connected network with batch norm (Ioffe & Szegedy, 2015), https://arxiv.org/abs/1502.03167.

With three layers of 1024 units it is the one that the MNIST configuration of TLA's code names (Mao
et al., 2019, https://arxiv.org/abs/1909.00900).  Without batch norm it is what verifiers are tried
on (Weng et al., 2018, https://arxiv.org/abs/1804.09699).
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

from pydantic import PositiveInt
from torch import nn

from robustbench_cli.models import MODELS, Classifier, ModelConfig, Shape


@MODELS.register("mlp")
@dataclass(frozen=True, kw_only=True)
class MLP(ModelConfig):
    """Hidden layers of equal width, each followed by batch norm, or not, and ReLU."""

    layers: PositiveInt = 3
    """Number of hidden layers."""
    hidden: PositiveInt = 1024
    """Units of each of them."""
    norm: Literal["batch", "none"] = "batch"
    """What follows each of them before its ReLU: batch norm, or nothing."""

    def build(self, shape: Shape) -> Classifier:
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        features = shape.channels * shape.height * shape.width
        for i in range(1, self.layers + 1):
            layers[f"fc{i}"] = nn.Linear(features, self.hidden)
            if self.norm == "batch":
                layers[f"bn{i}"] = nn.BatchNorm1d(self.hidden)
            layers[f"relu{i}"] = nn.ReLU()
            features = self.hidden
        return Classifier(
            self.normalizer(shape), nn.Sequential(layers), nn.Linear(features, shape.classes)
        )
