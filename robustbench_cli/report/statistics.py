"""Entries of a table: facts on a row, accuracies and distances with their spread."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import inf, isfinite, sqrt
from statistics import NormalDist, fmean, stdev
from typing import TYPE_CHECKING, Any

from robustbench_cli.report.example_files import MissingVerdicts
from robustbench_cli.report.number_trust import NumberTrust, derived_text

if TYPE_CHECKING:
    from robustbench_cli.report.origins import Origin
    from robustbench_cli.report.sampling import Sample

Z95 = NormalDist().inv_cdf(0.975)
"""The factor of a 95 % interval, 1.96."""


def wilson(correct: float, n: float, quantile: float = Z95) -> tuple[float, float]:
    """The score interval of a share (Wilson, 1927), of 95 % with the usual quantile."""
    share, weight = correct / n, quantile**2 / n
    half = quantile * sqrt(share * (1 - share) / n + weight / (4 * n))
    low, high = ((share + weight / 2 + side * half) / (1 + weight) for side in (-1, 1))
    # Rounding must not move the ends where nothing or everything is right.
    return (low if correct else 0.0), (high if correct < n else 1.0)


@dataclass(frozen=True)
class Fact:
    """A property of a row, as text, as data, and as a key for sorting."""

    text: str
    raw: Mapping[str, Any]
    rank: Any


@dataclass(frozen=True, kw_only=True)
class Measurement(ABC):
    """Something that was measured for a row, once per seed; the larger the better."""

    name: str
    seeds: int = 1
    """The number of seeds of the row; some may lack this measurement."""
    attack: str = ""
    """Whose number it is, whatever the value of a sweep."""
    at: tuple[str, float] | None = None
    """In a sweep: over what, and the value."""
    trust: NumberTrust | None = None
    """How far the number can be trusted; None where nothing is said of that."""
    origins: tuple["Origin", ...] = field(default=(), compare=False, repr=False)
    """The per-example verdicts, one for each of ``values``; empty: nobody knows them."""

    @cached_property
    def sample(self) -> "Sample":
        """The verdicts of all seeds; they are read when this is first asked for.

        Raises:
            MissingVerdicts: they are missing, damaged, or not about the same images.
        """
        from robustbench_cli.report.sampling import Sample

        self.check_presence()
        return Sample.of(self.origins)

    def check_presence(self) -> None:
        """Raise ``MissingVerdicts`` if a file of verdicts is missing; nothing is read."""
        if len(self.origins) != len(self.values):
            raise MissingVerdicts(f"no per-example verdicts of {self.name!r} are kept")
        for origin in self.origins:
            origin.check_presence()

    @property
    @abstractmethod
    def values(self) -> tuple[float, ...]:
        """One per seed that has it."""

    @property
    @abstractmethod
    def text(self) -> str:
        """As papers write it."""

    @property
    @abstractmethod
    def raw(self) -> Mapping[str, Any]:
        """In full precision, one column for each number."""

    @property
    def mean(self) -> float:
        """Over seeds."""
        return fmean(self.values)

    @property
    def std(self) -> float | None:
        """The sample standard deviation over seeds; None for a single one."""
        finite = len(self.values) > 1 and all(map(isfinite, self.values))
        return stdev(self.values) if finite else None

    @property
    def partial(self) -> bool:
        """True if some seeds of the row lack it."""
        return len(self.values) < self.seeds

    @property
    def rank(self) -> float:
        """The best comes first."""
        return -self.mean

    @property
    def competes(self) -> bool:
        """True if it may be the best of its column."""
        return self.trust is None or self.trust.competes

    @property
    def has_two_ends(self) -> bool:
        """True if a sample or a budget left something open, so that it is no single number."""
        return self.trust is not None and self.trust.confidence is not None

    def _trusted(self, key: str) -> dict[str, Any]:
        """Return the trust as data, by the key of the number with an ending."""
        if self.trust is None:
            return {}
        found = {} if self.trust.found is None else {f"{key}_found": self.trust.found}
        return {f"{key}_trust": self.trust.state, **found}

    @property
    def _some(self) -> str:
        return f" ({len(self.values)}/{self.seeds})" if self.partial else ""


@dataclass(frozen=True, kw_only=True)
class Cell(Measurement):
    """An accuracy: right answers among ``n`` examples."""

    correct: tuple[float, ...]
    """Per seed; not whole for a randomised model, which is right with a probability."""
    n: int
    intervals: bool = False
    """True if it is written with its confidence interval."""
    over_looks: tuple[float, float] | None = None
    """The interval over all looks, where one evaluation took ever more images (``--widen``)."""

    @property
    def values(self) -> tuple[float, ...]:
        return tuple(right / self.n for right in self.correct)

    @property
    def mean(self) -> float:
        return sum(self.correct) / (self.n * len(self.correct))

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval: of one seed Wilson's, or that over all looks; of several that of
        ``Sample``, which needs the verdicts; None without them."""
        return self._ends if isinstance(self._ends, tuple) else None

    @property
    def no_interval(self) -> str:
        """The reason why there is no interval; empty where there is one or nobody wants it."""
        if not self.intervals or isinstance(self._ends, tuple):
            return ""
        return str(self._ends)

    @cached_property
    def _ends(self) -> tuple[float, float] | MissingVerdicts:
        if self.over_looks is not None:
            return self.over_looks
        if len(self.correct) == 1:
            return wilson(self.correct[0], self.n)
        try:
            return self.sample.interval
        except MissingVerdicts as error:
            return error

    @property
    def text(self) -> str:
        """Per cent, with the interval if that is wanted and known, else with the deviation."""
        spread = "" if self.std is None else f" ± {100 * self.std:.2f}"
        if self.intervals and self.interval:
            low, high = self.interval
            spread = f" [{100 * low:.1f}, {100 * high:.1f}]"
        number = f"{100 * self.mean:.2f}{spread}{self._some}"
        if self.trust is None:
            return number
        found = self.trust.found
        return self.trust.written(number, "" if found is None else f"{100 * found:.2f}")

    @property
    def raw(self) -> Mapping[str, Any]:
        """Shares; the ends of the interval, if that is wanted, are None where it is not known."""
        low, high = (self.intervals and self.interval) or (None, None)
        ends = {f"{self.name}_low": low, f"{self.name}_high": high} if self.intervals else {}
        numbers = {self.name: self.mean, f"{self.name}_std": self.std, **ends}
        return {**numbers, **self._trusted(self.name)}


@dataclass(frozen=True, kw_only=True)
class LastEpochGain(Measurement):
    """The accuracy of the last epoch's weights less that of the weights which were kept."""

    points: tuple[float, ...]
    """Per seed, as shares; negative where the last epochs did harm."""

    @property
    def values(self) -> tuple[float, ...]:
        return self.points

    @property
    def text(self) -> str:
        """Percentage points, with their sign."""
        spread = "" if self.std is None else f" ± {100 * self.std:.2f}"
        number = f"{100 * self.mean:+.2f}{spread}{self._some}"
        return derived_text(self.trust, number) if self.trust else number

    @property
    def raw(self) -> Mapping[str, Any]:
        """Shares."""
        return {self.name: self.mean, f"{self.name}_std": self.std, **self._trusted(self.name)}


@dataclass(frozen=True, kw_only=True)
class Distance(Measurement):
    """The median distance of the nearest adversarial image, in the norm of the threat."""

    distances: tuple[float, ...]
    """Per seed; infinite where no image was found for half of the examples."""

    @property
    def values(self) -> tuple[float, ...]:
        return self.distances

    @property
    def mean(self) -> float:
        return fmean(self.values) if all(map(isfinite, self.values)) else inf

    @property
    def text(self) -> str:
        """Four digits: in Linf the first two are often zero."""
        spread = "" if self.std is None else f" ± {self.std:.4f}"
        number = f"{self.mean:.4f}" if isfinite(self.mean) else "∞"
        whole = f"{number}{spread}{self._some}"
        return self.trust.written(whole) if self.trust else whole

    @property
    def raw(self) -> Mapping[str, Any]:
        """None where it is infinite, which JSON cannot say."""
        key = self.name.replace(" ", "_")
        mean = self.mean if isfinite(self.mean) else None
        return {key: mean, f"{key}_std": self.std, **self._trusted(key)}
