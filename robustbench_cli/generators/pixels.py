"""A negative control for proxy distributions (Sehwag et al., 2022),
https://arxiv.org/abs/2104.09425."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.data import Split
from robustbench_cli.generators import GENERATORS, Generator


@GENERATORS.register("pixels")
@dataclass(frozen=True, kw_only=True)
class Pixels(Generator):
    """Independent Gaussian pixels with the class's means and standard deviations: a control.

    It models no shape beyond the mean image, so a gain in robustness that a real proxy gives should
    not occur with it.  The paper has no such control.
    """

    def fit(self, train: Split) -> dict[str, Tensor]:
        size = (len(train.classes), *train.image_shape)
        known = {name: torch.zeros(size, dtype=torch.float64) for name in ("means", "spreads")}
        for label in {*train.y.tolist()}:
            x = train.images(train.y == label).double()
            known["means"][label], known["spreads"][label] = x.mean(0), x.std(0, correction=0)
        return known

    def draw(self, known: Mapping[str, Tensor], y: Tensor, noise: Noise) -> Tensor:
        means = known["means"][y]
        return means + known["spreads"][y] * noise.normal(means)
