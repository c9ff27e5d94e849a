"""A cascade of attacks, each on the examples that the ones before it left unbroken.

The per-example worst case of Croce & Hein (2020), https://arxiv.org/abs/2003.01690, section 5.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from robustbench_cli.attacks import ATTACKS, Attack, Stage
from robustbench_cli.attacks._base import ENOUGH_CLASSES
from robustbench_cli.attacks._fab import FABBase
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat


def _names(value: Any) -> Any:
    return tuple(value.split("/")) if isinstance(value, str) else value


@ATTACKS.register("ensemble", positional="of")
@dataclass(frozen=True, kw_only=True)
class Ensemble(Attack):
    """Several attacks one after the other, as in ``ensemble:apgd-ce/cw100/square1000``.

    An example is robust if none of them breaks it, as in AutoAttack.  In a suite file:
    ``[attack.mine]``, ``name = "ensemble"``, ``of = ["apgd-ce", "square"]``.
    """

    of: Annotated[tuple[str, ...], BeforeValidator(_names), Field(min_length=1)] = (
        "apgd-ce",
        "square",
    )
    """The members, as --attack takes them, in the order in which they run."""

    def __post_init__(self) -> None:
        """Check the members.

        Raises:
            ValueError: an unknown attack, a mistake in its parameters, or an attack that looks for
                the nearest adversarial image and so does not stay inside the radius.
        """
        try:
            found = self._built().values()
        except UserError as error:
            raise ValueError(str(error)) from None
        for attack in found:
            if attack.minimal:
                raise ValueError(
                    f"{ATTACKS.name_of(attack)} looks for the nearest image; members must look "
                    "inside the radius"
                )
            if attack.target is not None:
                raise ValueError(
                    f"give the target to the ensemble: ensemble:...,target={attack.target}"
                )

    def _built(self) -> dict[str, Attack]:
        """Return the members by the text that names them; FAB is told to stay in the radius."""
        attacks = {text: ATTACKS.build(Spec.parse(text)) for text in self.of}
        return {
            text: replace(attack, within=True) if isinstance(attack, FABBase) else attack
            for text, attack in attacks.items()
        }

    @property
    def no_target(self) -> str:
        reasons = {text: attack.no_target for text, attack in self._built().items()}
        return next((f"{text}: {reason}" for text, reason in reasons.items() if reason), "")

    def first_members(self, stages: Sequence[Stage]) -> int | None:
        """Return the stages of the first member; all others are in the tail always."""
        return sum(stage.member == stages[0].member for stage in stages)

    def variant(self, threat: Threat, classes: int) -> str:
        said = {text: each.variant(threat, classes) for text, each in self._built().items()}
        return "; ".join(f"{text}: {what}" for text, what in said.items() if what)

    @property
    def needs(self) -> int:
        return max(attack.needs for attack in self._built().values())

    @property
    def measures(self) -> tuple[str, ...]:
        norms = [attack.measures for attack in self._built().values()]
        return tuple(norm for norm in norms[0] if all(norm in other for other in norms))

    def members(self, threat: Threat, classes: int = ENOUGH_CLASSES) -> Mapping[str, Attack]:
        return {
            f"{outer}/{inner}" if inner != ATTACKS.name_of(attack) else outer: member
            for outer, attack in self._built().items()
            for inner, member in attack.members(threat, classes).items()
        }
