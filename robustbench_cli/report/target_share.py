"""The share of targets that an attack with a target reached, as an entry of a table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from robustbench_cli.report.number_trust import LOWER_BOUND_SIGN
from robustbench_cli.report.statistics import Measurement


@dataclass(frozen=True, kw_only=True)
class TargetShare(Measurement):
    """Images made into their target, of those that were attacked; the lower, the more robust.

    It is compared with nothing, least of all with a robust accuracy.
    """

    shares: tuple[float, ...]
    """Per seed."""
    of: tuple[int, ...]
    """Per seed, the number of images that were attacked: fewer than the row's n."""

    @property
    def values(self) -> tuple[float, ...]:
        return self.shares

    @property
    def competes(self) -> bool:
        return False

    @property
    def text(self) -> str:
        """Per cent, with the number of images."""
        spread = "" if self.std is None else f" ± {100 * self.std:.2f}"
        of = "-".join(map(str, sorted({min(self.of), max(self.of)})))
        number = f"{100 * self.mean:.2f}{spread} of {of}{self._some}"
        return self.trust.written(number, sign=LOWER_BOUND_SIGN) if self.trust else number

    @property
    def raw(self) -> Mapping[str, Any]:
        """Shares, and the smallest number of images."""
        key = self.name
        numbers = {key: self.mean, f"{key}_std": self.std, f"{key}_n": min(self.of)}
        return {**numbers, **self._trusted(key)}
