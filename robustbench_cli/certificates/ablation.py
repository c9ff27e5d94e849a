"""Randomized ablation (Levine & Feizi, 2020), https://arxiv.org/abs/1911.09272."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field
from torch import Tensor

from robustbench_cli.certificates import ABSTAINS, CERTIFICATES, Certified, ProofSubject
from robustbench_cli.certificates._masked import MaskedVoting
from robustbench_cli.certificates._polls import likeliest, lower_bound
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.image_parts import random_pixels
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import Norm


@CERTIFICATES.register("ablation")
@dataclass(frozen=True, kw_only=True)
class Ablation(MaskedVoting):
    """The class predicted most often where few random pixels are seen: how many pixels may change.

    A copy shows ``keep`` of the d pixels, every set as likely, with all of their channels.  If r
    pixels change, a copy shows none of them with the probability C(d - r, keep) / C(d, keep), and
    then its vote is what it was.  The first n0 votes choose a class, n others bound its probability
    from below by p (Clopper & Pearson, 1934, one-sided); the radius is the largest r for which
    p - (1 - C(d - r, keep) / C(d, keep)) > 1/2, in exact fractions.  The prediction is that of a
    two-sided binomial test between the two most frequent classes of the n votes.  For each example,
    either statement is wrong with a probability of at most alpha.

    Defaults are those of the paper for MNIST; it keeps 75 pixels on CIFAR-10, 2000 on ImageNet.
    """

    norm: ClassVar[Norm] = "L0"
    digits: ClassVar[int] = 0
    radii: ClassVar[tuple[float, ...]] = (1, 2, 4, 8, 16)

    keep: Annotated[int, Field(ge=1)] = 45
    """Number of pixels that are seen."""
    n0: Annotated[int, Field(ge=1)] = 1000
    """Number of votes that choose the class."""
    n: Annotated[int, Field(ge=1)] = 10_000
    """Number of votes that bound its probability (the number of images is --n)."""
    alpha: Annotated[Number, Field(gt=0, lt=1)] = 0.05
    """Largest probability of a wrong statement about an example."""

    @property
    def shows(self) -> str:
        return f"{self.keep} pixels"

    def check(self, subject: ProofSubject) -> None:
        super().check(subject)
        _, height, width = subject.image_shape
        if self.keep > height * width:
            raise UserError(f"ablation:keep={self.keep}: images have {height * width} pixels")

    def polls(self, image: tuple[int, ...]) -> tuple[int, ...]:
        return self.n0, self.n

    def max_radius(self, image: tuple[int, ...]) -> float:
        bound = lower_bound(np.array([self.n]), self.n, self.alpha)
        return max(0.0, float(self.radii_of(bound, image[1] * image[2])[0]))

    def seen(self, x: Tensor, noise: Noise, copy: Tensor) -> Tensor:
        return random_pixels(x, noise.fork("ablation"), self.keep)

    def certify(self, evidence: Mapping[str, np.ndarray]) -> Certified:
        votes = evidence["votes"]
        chosen = votes[:, 0].argmax(1)
        count = np.take_along_axis(votes[:, 1], chosen[:, None], 1)[:, 0]
        _, height, width = evidence["image"][0].tolist()
        bound = lower_bound(count, self.n, self.alpha)
        radius = self.radii_of(bound, height * width)
        return Certified(
            prediction=likeliest(votes[:, 1], self.alpha),
            certified=np.where(radius >= 0, chosen, ABSTAINS),
            radius=np.maximum(radius, 0).astype(float),
            confidence=bound,
        )

    def radii_of(self, bound: np.ndarray, pixels: int) -> np.ndarray:
        """Return the number of pixels that may change (B), -1 where not even the class is proven.

        Args:
            bound: lower bounds on the probability of a class (B).
            pixels: the number of pixels of an image, d.
        """
        untouched, shares = Fraction(1), [Fraction(1)]
        # Beyond a share of 1/2 no probability is large enough.
        while untouched > Fraction(1, 2) and len(shares) <= pixels - self.keep:
            untouched *= Fraction(pixels - len(shares) + 1 - self.keep, pixels - len(shares) + 1)
            shares.append(untouched)
        # scipy's quantile may be too large in its last digits.
        needed = [Fraction(3, 2) - Fraction(p) * (1 - Fraction(1, 10**10)) for p in bound.tolist()]
        return np.array([sum(share > least for share in shares) - 1 for least in needed])
