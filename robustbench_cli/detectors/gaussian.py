"""Class-conditional Gaussians with a shared covariance (Lee et al., 2018),
https://arxiv.org/abs/1807.03888."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.core.registry import Number
from robustbench_cli.detectors import DETECTORS, Detector, ModelOutputs


@DETECTORS.register("gaussian")
@dataclass(frozen=True, kw_only=True)
class GaussianDetector(Detector):
    """Flag features that are unlikely under all classes, each a Gaussian around its class mean.

    The density score ranks as the Mahalanobis score of Lee et al. on the last layer, without their
    input preprocessing and without other layers.  The detector with which Mao et al. (2019,
    arXiv:1909.00900) evaluate TLA is not in their code; this is the one that they describe.
    """

    score: Literal["density", "posterior"] = "density"
    """The density under the most likely class, or that class's posterior probability."""
    ridge: Annotated[Number, Field(gt=0)] = 1e-3
    """Added to each feature's variance, as a share of the mean variance: some features are
    constant."""

    def fit(self, seen: ModelOutputs, y: Tensor) -> dict[str, Tensor]:
        features, classes = seen.features.double(), seen.logits.shape[1]
        count = torch.bincount(y, minlength=classes)
        sums = features.new_zeros(classes, features.shape[1]).index_add(0, y, features)
        means = sums / count.clamp(min=1)[:, None]
        rest = features - means[y]
        covariance = rest.T @ rest / len(y)
        covariance.diagonal().add_(self.ridge * covariance.diagonal().mean())
        return {
            "means": means,
            "log_shares": (count / len(y)).log().to(means),
            "factor": torch.linalg.cholesky(covariance),
        }

    def suspicion(self, seen: ModelOutputs, known: Mapping[str, Tensor]) -> Tensor:
        density = log_density(seen.features.double(), known["means"], known["factor"])
        # A class without training images has no Gaussian.
        density = density.where(known["log_shares"].isfinite(), float("-inf"))
        if self.score == "density":
            return -density.amax(1)
        return -(density + known["log_shares"]).log_softmax(1).amax(1)


def log_density(x: Tensor, means: Tensor, factor: Tensor) -> Tensor:
    """Return the log-densities (B, K) of points under K Gaussians with a shared covariance.

    Args:
        x: points (B, F).
        means: class means (K, F).
        factor: Cholesky factor L (F, F) of the covariance L L^T.
    """
    white, centers = (
        torch.linalg.solve_triangular(factor, each.T, upper=False).T for each in (x, means)
    )
    squared = torch.cdist(white, centers, compute_mode="donot_use_mm_for_euclid_dist").square()
    volume = factor.diagonal().log().sum() + x.shape[1] / 2 * math.log(2 * math.pi)
    return -squared / 2 - volume
