"""Twice the steps, and twice the restarts, of the claimed attack.

An attack has converged where more of the same finds nothing more (Carlini et al., 2019,
https://arxiv.org/abs/1902.06705).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from robustbench_cli.attacks import Attack
from robustbench_cli.audit import CHECKS, Battery, BatteryCheck, Need
from robustbench_cli.audit._series import Series, follows_gradients, parts_of, with_more
from robustbench_cli.core.registry import Number
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("more-steps")
@dataclass(frozen=True, kw_only=True)
class MoreSteps(BatteryCheck):
    """Doubled steps and doubled restarts must break little that the claimed attack left.

    Only members that climb a loss inside the ball are doubled, and only examples that stood are
    attacked: at most ``images`` of them, unless the audit is thorough.
    """

    needs: ClassVar[tuple[Need, ...]] = ("gradients",)
    passes: ClassVar[float] = 200
    severity: ClassVar[Severity] = "warning"
    says: ClassVar[str] = (
        "{what} broke {images} of {of} images that the claimed attack had left standing: more of "
        "the same finds more"
    )

    share: Number = 0.1
    """The share of the right images that would fall from which the number is marked, as for
    restarts that disagree."""
    least: int = 3
    """The smallest number of images that counts."""
    images: int = 64
    """Images that stood on which it is tried."""

    def examine(self, battery: Battery) -> Iterator[Finding]:
        among = battery.some(battery.standing, self.images)
        tried = int(among.sum())
        plain = parts_of(battery.claimed.stages, follows_gradients)
        if not tried or not plain:
            why = "nothing stood" if plain else "the claimed attack has no steps to double"
            battery.measured("more-steps", f"not made: {why}")
            return
        for parameter in ("steps", "restarts"):
            doubled = _doubled(plain, parameter)
            if not doubled:
                continue
            label = f"{battery.claimed.label}, {parameter} x2"
            judged = battery.run("more-steps", label, Series(parts=doubled), among=among)
            broken = int(judged.broken.sum())
            share = broken / tried
            points = share * float(battery.standing.sum()) / max(1, int(battery.right.sum()))
            bad = broken >= self.least and points > self.share
            battery.measured(
                "more-steps",
                f"doubled {parameter} ({', '.join(doubled)}) broke {broken} of {tried} images "
                "that had stood",
                not bad,
            )
            if broken:
                yield self.broken(
                    broken,
                    tried,
                    marked=bad,
                    what=f"doubled {parameter}",
                    value=points,
                    threshold=self.share,
                    accuracy=battery.share_left(judged, among),
                )


def _doubled(parts: Mapping[str, Attack], parameter: str) -> dict[str, Attack]:
    """Return the parts that have the parameter, with twice as much of it."""
    more = {name: with_more(part, parameter, 2) for name, part in parts.items()}
    return {name: part for name, part in more.items() if part is not None}
