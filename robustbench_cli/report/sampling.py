"""How far a mean over test images and seeds would move if both were drawn anew.

The bootstrap in question draws N of the N images with replacement, the same ones for every seed,
and independently of them S - 1 of the S seeds.  Images and seeds are drawn separately because
verdicts of several seeds on one image are no independent observations (Owen, 2007, The pigeonhole
bootstrap, https://arxiv.org/abs/0712.1111); with S - 1 draws the variance between few seeds is not
underestimated (Rao and Wu, 1988, Resampling inference with complex survey data).  The variance of a
mean over infinitely many such draws has a closed form, which is used here: it needs no random
numbers, and it does not depend on the order of images or seeds.

numpy and scipy are imported in the functions, so that a table without verdicts starts without them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from robustbench_cli.report.origins import Origin
from robustbench_cli.report.statistics import Z95, wilson

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, eq=False)
class Sample:
    """What one recipe did on N test images with each of S seeds."""

    values: "np.ndarray"
    """(S, N), float64: how often each image counts as right."""

    @classmethod
    def of(cls, origins: Sequence[Origin]) -> "Sample":
        """Return the verdicts behind a number, one origin per seed.

        Raises:
            MissingVerdicts: they are missing, damaged, or not about the same images.
        """
        import numpy as np

        for origin in origins[1:]:
            check_same_images(origins[0], origin)
        return cls(np.stack([origin.shares for origin in origins]))

    @property
    def seeds(self) -> int:
        """S."""
        return int(self.values.shape[0])

    @property
    def images(self) -> int:
        """N."""
        return int(self.values.shape[1])

    @property
    def mean(self) -> float:
        """The mean over images and seeds."""
        return float(self.values.mean())

    @cached_property
    def image_means(self) -> "np.ndarray":
        """The mean over seeds for each image (N)."""
        means: np.ndarray = self.values.mean(0)
        return means

    @property
    def is_binary(self) -> bool:
        """True for one seed of a model that is not randomised: every value is 0 or 1."""
        return self.seeds == 1 and bool(((self.values == 0) | (self.values == 1)).all())

    @cached_property
    def seed_variance(self) -> float:
        """The variance of the mean that is due to the seeds; 0 for a single one."""
        if self.seeds == 1:
            return 0.0
        return float(self.values.mean(1).var(ddof=1)) / self.seeds

    @cached_property
    def variance(self) -> float:
        """The variance of the mean under the bootstrap over images and seeds."""
        of_images = float(self.image_means.var()) / self.images
        if self.seeds == 1:
            return of_images
        apart = float(self.values.var(1).mean() - self.image_means.var()) / self.images
        return of_images + self.seed_variance + max(0.0, apart) / (self.seeds - 1)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of a mean of shares.

        It is Wilson's for as many independent images as have this variance.  Where a share is 0 or
        1 throughout, that is the number of images, so no interval has the width 0.  Student's
        quantile takes the place of the normal one as far as the variance is known from few seeds.
        """
        spread = self.mean * (1 - self.mean)
        known = spread > 0 and self.variance > 0
        most = self.images * self.seeds
        n = min(spread / self.variance, most) if known else self.images
        return wilson(self.mean * n, n, quantile=student_quantile([self]))


def check_same_images(one: Origin, other: Origin) -> None:
    """Raise ``MissingVerdicts`` if two files of verdicts are about images of other classes."""
    import numpy as np

    from robustbench_cli.report.example_files import MissingVerdicts

    if one.file is not other.file and not np.array_equal(one.labels, other.labels):
        ids = f"{one.file.run_id!r} and {other.file.run_id!r}"
        raise MissingVerdicts(f"examples.npz of {ids} hold other labels")


def _freedom(samples: Sequence[Sample], variance: float) -> float:
    """Degrees of freedom of a variance that is known from few seeds (Satterthwaite, 1946)."""
    parts = [s.seed_variance**2 / (s.seeds - 1) for s in samples if s.seeds > 1]
    fewest = min((s.seeds - 1 for s in samples if s.seeds > 1), default=1)
    return max(variance**2 / sum(parts), fewest) if sum(parts) > 0 else float("inf")


def student_quantile(samples: Sequence[Sample]) -> float:
    """Return the factor of a 95 % interval: 1.96, or more where few seeds decide the variance."""
    freedom = _freedom(samples, sum(sample.variance for sample in samples))
    if freedom == float("inf"):
        return Z95
    from scipy import special  # type: ignore[import-untyped]  # slow to import

    return float(special.stdtrit(freedom, 0.975))


def student_p(difference: float, variance: float, samples: Sequence[Sample]) -> float:
    """Return the two-sided p value of a difference of means with this variance."""
    if variance <= 0:
        return 1.0
    from scipy import special  # slow to import

    freedom = min(_freedom(samples, variance), 1e9)
    return float(2 * special.stdtr(freedom, -abs(difference) / variance**0.5))
