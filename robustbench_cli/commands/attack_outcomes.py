"""The outcomes of an evaluation's attacks, as they come in."""

from dataclasses import dataclass, field

from robustbench_cli.commands.attack_summary import summarize_attack
from robustbench_cli.commands.sweep import SweepPoint
from robustbench_cli.commands.targeted import summarize_target
from robustbench_cli.evaluation.stages import AttackVerdicts
from robustbench_cli.runs.outcomes import Outcome, TargetedOutcome


@dataclass(frozen=True, kw_only=True)
class AttackOutcomes:
    """The figures of every attack that is done, those with a target apart from the others."""

    classes: int
    rejects_as: int | None
    """The prediction that stands for a rejection; None: nothing is rejected."""
    attacks: dict[str, Outcome] = field(default_factory=dict)
    """By label."""
    targeted: dict[str, TargetedOutcome] = field(default_factory=dict)

    @property
    def passes(self) -> int:
        """The passes that all of them took, forward and backward."""
        aimed = sum(each.forwards + each.backwards for each in self.targeted.values())
        return aimed + sum(each.forwards + each.backwards for each in self.attacks.values())

    def add(
        self, point: SweepPoint, column: AttackVerdicts, clean: AttackVerdicts, seconds: float
    ) -> None:
        """Take in the verdicts under one attack.

        Args:
            clean: the verdicts on the clean images.
            seconds: that the attack took.
        """
        stages = point.attack.stages(point.threat, self.classes)
        if point.attack.target is None:
            self.attacks[point.label] = summarize_attack(
                point, stages, column, clean, seconds, self.rejects_as, self.classes
            )
        else:
            self.targeted[point.label] = summarize_target(
                point, stages, column, clean, seconds, self.classes
            )

    @property
    def changes(self) -> dict[str, object]:
        """The fields of the record that they fill."""
        return {"attacks": {**self.attacks}, "targeted": {**self.targeted}}
