"""How many test images an evaluation took, where it took as many as its intervals needed.

No torch in here: reports start fast.
"""

from dataclasses import dataclass, field

from robustbench_cli.runs.settings import Finite

ShareEnds = tuple[Finite, Finite]
"""The ends of a share."""


@dataclass(frozen=True, kw_only=True)
class WidenedN:
    """The looks of an evaluation at ever more test images, and the intervals at the last one.

    Each interval holds with confidence ``1 - alpha`` whenever the evaluation stopped: the looks
    share the error.  Where a tail was sampled, too, it holds for both together.
    """

    asked: Finite
    """Points of accuracy to either side that every robust accuracy may have."""
    sizes: list[int]
    """The images at each look, planned before the first one; the last are all there are."""
    looks: int
    """The looks that were taken."""
    alpha: Finite
    clean: ShareEnds
    attacks: dict[str, ShareEnds] = field(default_factory=dict)
    """By label."""
    worst: ShareEnds | None = None
    """Of the worst case over several attacks."""

    def worst_of(self, labels: list[str]) -> ShareEnds | None:
        """Return the interval of the worst case over these attacks, which may be a single one."""
        return self.attacks.get(labels[0]) if len(labels) == 1 else self.worst

    @property
    def points(self) -> float:
        """The largest half width of the intervals under attack, in points."""
        under_attack = [*self.attacks.values(), *([self.worst] if self.worst else [])]
        return max((50 * (high - low) for low, high in under_attack), default=0.0)

    @property
    def enough(self) -> bool:
        """True if all of them are as narrow as was asked."""
        return round(self.points, 9) <= self.asked

    @property
    def goes_on(self) -> bool:
        """True if another look is due."""
        return not self.enough and self.looks < len(self.sizes)
