"""What single attacks did to many nets, and what any series of them would leave and cost.

No torch in here: ``docs`` reads it, too.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

KEPT = Path(__file__).parents[1] / "docs" / "suites.json"
AUTOATTACK = ("apgd-ce", "apgd-t", "fab-t:within=true", "square:rescale=false")
"""AutoAttack's members, as it runs them."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one attack did to the images of one net that are right when clean."""

    net: str
    half: str
    planted: bool
    attack: str
    n: int
    """Images of the net, the wrong ones included."""
    broken: str
    """``1`` for each image that it broke, else ``0``."""
    passes: list[int]
    """Forward and backward passes of each image."""
    seconds: float

    @property
    def flags(self) -> np.ndarray:
        """``broken`` as booleans."""
        return np.array([*self.broken]) == "1"


def kept(path: Path = KEPT) -> list[Measured]:
    """Return what was measured so far."""
    lines = json.loads(path.read_text()) if path.exists() else []
    return [Measured(**line) for line in lines]


def rows_text(rows: Sequence[Measured]) -> str:
    """Return everything that was measured as JSON, a line each."""
    lines = [json.dumps(vars(row)) for row in sorted(rows, key=lambda r: (r.net, r.attack))]
    return "[\n" + ",\n".join(lines) + "\n]\n"


@dataclass(frozen=True, kw_only=True)
class Table:
    """Verdicts and passes of every candidate on some nets."""

    nets: list[str]
    sizes: np.ndarray
    """Images of each net."""
    broken: list[np.ndarray]
    """For each net: (attacks, images), bool."""
    passes: list[np.ndarray]
    """For each net: (attacks, images)."""

    @classmethod
    def of(cls, rows: Sequence[Measured], attacks: Sequence[str]) -> "Table":
        """Return the table of the nets on which all these attacks were measured."""
        found: dict[str, dict[str, Measured]] = {}
        for row in rows:
            found.setdefault(row.net, {})[row.attack] = row
        whole = {net: by for net, by in found.items() if {*attacks} <= {*by}}
        return cls(
            nets=[*whole],
            sizes=np.array([next(iter(by.values())).n for by in whole.values()]),
            broken=[np.stack([by[a].flags for a in attacks]) for by in whole.values()],
            passes=[np.array([by[a].passes for a in attacks]) for by in whole.values()],
        )

    def left(self, series: Sequence[int]) -> np.ndarray:
        """Return the points of robust accuracy that a series leaves, by net."""
        standing = [(~broken[[*series]].any(0)).sum() for broken in self.broken]
        return 100 * np.array(standing) / self.sizes

    def spent(self, series: Sequence[int]) -> float:
        """Return the passes of a series, all images of all nets together, in this order."""
        total = 0
        for broken, passes in zip(self.broken, self.passes, strict=True):
            standing = np.ones(broken.shape[1], bool)
            for place in series:
                total += passes[place][standing].sum()
                standing &= ~broken[place]
        return float(total)

    def price(self, series: Sequence[int]) -> float:
        """Return the passes of an image that stands, the mean over all nets."""
        costs = []
        for broken, passes in zip(self.broken, self.passes, strict=True):
            standing = ~broken[[*series]].any(0)
            costs += [*passes[[*series]][:, standing].sum(0)]
        return float(np.mean(costs)) if costs else 0.0
