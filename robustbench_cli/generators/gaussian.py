"""Class-conditional PCA, after Tipping and Bishop (1999), https://doi.org/10.1111/1467-9868.00196."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from pydantic import PositiveInt
from torch import Tensor

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.data import Split
from robustbench_cli.generators import GENERATORS, Generator


@GENERATORS.register("gaussian", aliases=("pca",))
@dataclass(frozen=True, kw_only=True)
class GaussianGenerator(Generator):
    """A Gaussian per class with the class mean and its leading principal components.

    Other directions have no variance, where probabilistic PCA has isotropic noise.
    """

    components: PositiveInt = 40
    """Principal components per class; a class of n images has at most n - 1."""

    def fit(self, train: Split) -> dict[str, Tensor]:
        image = train.image_shape
        rank = min(self.components, image.numel())
        means = torch.zeros(len(train.classes), image.numel(), dtype=torch.float64)
        axes = torch.zeros(len(train.classes), rank, image.numel(), dtype=torch.float64)
        for label in {*train.y.tolist()}:
            x = train.images(train.y == label).double().flatten(1)
            means[label] = x.mean(0)
            _, singular, directions = torch.linalg.svd(x - means[label], full_matrices=False)
            scaled = singular[:rank, None] * directions[:rank] / max(1, len(x) - 1) ** 0.5
            axes[label, : len(scaled)] = scaled
        return {"means": means.view(-1, *image), "axes": axes.view(-1, rank, *image)}

    def draw(self, known: Mapping[str, Tensor], y: Tensor, noise: Noise) -> Tensor:
        axes = known["axes"][y]
        coefficients = noise.normal(axes.new_empty(axes.shape[:2]))
        return known["means"][y] + torch.einsum("br,brchw->bchw", coefficients, axes)
