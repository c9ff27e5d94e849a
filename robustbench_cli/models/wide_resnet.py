"""Wide residual networks (Zagoruyko and Komodakis, 2016), https://arxiv.org/abs/1605.07146.

In the form that TRADES trains (Zhang et al., 2019, https://arxiv.org/abs/1901.08573), without the
``sub_block1`` that its code builds and never calls.
"""

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from pydantic import Field, PositiveInt
from torch import nn

from robustbench_cli.core.registry import Number
from robustbench_cli.models import MODELS, Classifier, ModelConfig, Shape
from robustbench_cli.models._residual import initialise, stage
from robustbench_cli.models.preact_resnet import PreActBlock


@MODELS.register("wrn", pattern=r"(?:wrn|wide-?resnet)-?(?P<depth>\d+)-(?P<width>\d+)")
@dataclass(frozen=True, kw_only=True)
class WideResNet(ModelConfig):
    """Three groups of pre-activation blocks: ``wrn-28-10`` has 36,479,194 parameters on CIFAR-10.

    Global average pooling takes the place of the published 8x8 pooling; on 32x32 images they are
    equal.
    """

    depth: PositiveInt = 28
    """Number of layers, 6n + 4 for n blocks per group."""
    width: PositiveInt = 10
    """Channels of the first group in multiples of 16; each later group doubles them."""
    dropout: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    """Probability of dropping a unit between the two convolutions of a block."""

    def __post_init__(self) -> None:
        if self.depth < 10 or self.depth % 6 != 4:
            below = max(10, (self.depth - 4) // 6 * 6 + 4)
            near = f"{below} or {below + 6}" if self.depth > below else f"{below}"
            raise ValueError(f"depth must be 6n + 4, such as {near}, got {self.depth}")

    def build(self, shape: Shape) -> Classifier:
        blocks = (self.depth - 4) // 6
        w = 16 * self.width
        block = partial(PreActBlock, dropout=self.dropout)
        body = nn.Sequential(
            OrderedDict(
                stem=nn.Conv2d(shape.channels, 16, 3, padding=1, bias=False),
                group1=stage(block, 16, w, stride=1, depth=blocks),
                group2=stage(block, w, 2 * w, stride=2, depth=blocks),
                group3=stage(block, 2 * w, 4 * w, stride=2, depth=blocks),
                bn=nn.BatchNorm2d(4 * w),
                relu=nn.ReLU(),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
            )
        )
        initialise(body)
        head = nn.Linear(4 * w, shape.classes)
        nn.init.zeros_(head.bias)
        return Classifier(self.normalizer(shape), body, head)
