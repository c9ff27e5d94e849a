"""Randomised smoothing (Cohen, Rosenfeld & Kolter, 2019), https://arxiv.org/abs/1902.02918."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field
from scipy import stats  # type: ignore[import-untyped]
from torch import Tensor, nn

from robustbench_cli.certificates import ABSTAINS, CERTIFICATES, Certified
from robustbench_cli.certificates._polls import likeliest, lower_bound
from robustbench_cli.certificates._voting import VotingCertificate
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import Threat

SMALL_LINF_BALL = Threat("Linf", 2 / 255)
"""A ball in another norm for which certified accuracy is always reported, too (Carmon et al., 2019,
https://arxiv.org/abs/1905.13736)."""


@CERTIFICATES.register("smoothing")
@dataclass(frozen=True, kw_only=True)
class Smoothing(VotingCertificate):
    """The class predicted most often under Gaussian noise, and its certified L2 radius.

    CERTIFY and PREDICT of the paper (section 3.2).  The first n0 votes choose a class, n others
    bound its probability from below by p (Clopper & Pearson, 1934, one-sided); the radius is
    sigma Phi^-1(p), and nothing is certified where p < 1/2.  PREDICT compares the two most frequent
    classes of the same n votes in a two-sided binomial test.  For each example, either statement
    is wrong with a probability of at most alpha.

    The noisy images are not clipped to [0, 1], which the proof would not allow, and the model
    predicts in float32.  Defaults are those of Carmon et al. (2019, arXiv:1905.13736); Cohen et al.
    use n = 100000.
    """

    behind_defenses: ClassVar[bool] = True
    radii: ClassVar[tuple[float, ...]] = (0.25, 0.5, 0.75, 1.0)

    sigma: Annotated[Number, Field(gt=0)] = 0.25
    """Standard deviation of the noise, for images in [0, 1]."""
    n0: Annotated[int, Field(ge=1)] = 100
    """Number of votes that choose the class."""
    n: Annotated[int, Field(ge=1)] = 10_000
    """Number of votes that bound its probability (the number of images is --n)."""
    alpha: Annotated[Number, Field(gt=0, lt=1)] = 1e-3
    """Largest probability of a wrong statement about an example."""

    def polls(self, image: tuple[int, ...]) -> tuple[int, ...]:
        return self.n0, self.n

    def max_radius(self, image: tuple[int, ...]) -> float:
        return float(self._radius(self.lower_bound(np.array(self.n))))

    def reported(self, threat: Threat) -> list[Threat]:
        return [*super().reported(threat), SMALL_LINF_BALL]

    def copies(self, model: nn.Module, x: Tensor, noise: Noise, copy: Tensor) -> Tensor:
        return x + self.sigma * noise.fork("smoothing").normal(x)

    def certify(self, evidence: Mapping[str, np.ndarray]) -> Certified:
        votes = evidence["votes"]
        chosen = votes[:, 0].argmax(1)
        count = np.take_along_axis(votes[:, 1], chosen[:, None], 1)[:, 0]
        bound = self.lower_bound(count)
        return Certified(
            prediction=likeliest(votes[:, 1], self.alpha),
            certified=np.where(bound >= 0.5, chosen, ABSTAINS),
            radius=self._radius(bound),
            confidence=bound,
        )

    def lower_bound(self, count: np.ndarray) -> np.ndarray:
        """Return the lower confidence bound on a class's probability, given its votes.

        Args:
            count: votes for the class, out of n (B).
        """
        return lower_bound(count, self.n, self.alpha)

    def _radius(self, bound: np.ndarray) -> np.ndarray:
        """Return the certified radii (B), 0 where the bound is below 1/2."""
        return np.asarray(self.sigma * stats.norm.ppf(np.maximum(bound, 0.5)))
