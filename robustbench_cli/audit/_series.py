"""Some members of an attack, perhaps with other parameters, as one attack."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from robustbench_cli.attacks import ATTACKS, Attack, IterativeAttack, Stage
from robustbench_cli.attacks._base import ENOUGH_CLASSES
from robustbench_cli.attacks._fab import FABBase
from robustbench_cli.core.threat import Threat


@dataclass(frozen=True, kw_only=True)
class Series(Attack):
    """Attacks one after the other, each on the examples that the ones before it left."""

    parts: Mapping[str, Attack]
    """By the name under which each is counted."""

    @property
    def needs(self) -> int:
        return max((part.needs for part in self.parts.values()), default=2)

    @property
    def maskable(self) -> bool:
        return all(part.maskable for part in self.parts.values())

    @property
    def draws(self) -> int:
        return max((part.draws for part in self.parts.values()), default=1)

    def members(self, threat: Threat, classes: int = ENOUGH_CLASSES) -> Mapping[str, Attack]:
        return self.parts


def parts_of(
    stages: Sequence[Stage], wanted: Callable[[Attack], bool] = lambda _: True
) -> dict[str, Attack]:
    """Return the members that the stages of an attack belong to, by name.

    Args:
        stages: of the attack, in order; those on views are left out.
        wanted: says which members to keep.
    """
    return {s.member: s.attack for s in stages if s.view is None and wanted(s.attack)}


def with_more(attack: Attack, parameter: str, factor: int) -> Attack | None:
    """Return the attack with ``factor`` times as many of a parameter; None where it has none."""
    if parameter not in {each.name for each in fields(attack)}:
        return None
    return replace(attack, **{parameter: factor * getattr(attack, parameter)})


def follows_gradients(attack: Attack) -> bool:
    """Return True for an attack of several steps inside the ball that climbs a loss."""
    climbs = isinstance(attack, IterativeAttack) and not isinstance(attack, FABBase)
    inside = climbs and not attack.minimal and attack.access == "gradient"
    return inside and int(getattr(attack, "steps", 0)) > 0


def described(attack: Attack) -> dict[str, object]:
    """Return an attack's name and parameters as records keep them, of a series part by part."""
    if isinstance(attack, Series):
        return {name: ATTACKS.describe(part) for name, part in attack.parts.items()}
    return ATTACKS.describe(attack)
