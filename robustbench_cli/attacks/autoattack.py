"""AutoAttack (Croce & Hein, 2020), https://arxiv.org/abs/2003.01690.

L1 composition: Croce & Hein (2021), https://arxiv.org/abs/2103.01208.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from robustbench_cli.attacks import ATTACKS, Attack, Stage
from robustbench_cli.attacks._apgd import APGD
from robustbench_cli.attacks._base import ENOUGH_CLASSES
from robustbench_cli.attacks.apgd import CrossEntropy, LogitMargin, LogitRatio
from robustbench_cli.attacks.apgd import TargetedAPGD as APGDTargeted
from robustbench_cli.attacks.fab import FAB
from robustbench_cli.attacks.fab import TargetedFAB as FABTargeted
from robustbench_cli.attacks.square import Square
from robustbench_cli.core.threat import Threat

Version = Literal["standard", "plus", "rand"]


@ATTACKS.register("autoattack", aliases=("aa",))
@dataclass(frozen=True, kw_only=True)
class AutoAttack(Attack):
    """The standard ensemble: APGD-CE, APGD-T, FAB-T and Square, each on the unbroken examples.

    The attacks and parameters are those of the official code (``autoattack-reference``), L1
    included: there APGD-CE has five restarts and APGD-T five targets.  Two departures make
    verdicts independent of the batch size: each example has random numbers of its own, and it
    leaves as soon as it is broken.

    For two and three classes, which the official code refuses, it runs what is defined there: with
    three, APGD-DLR in place of APGD-T, whose ratio reads four logits; with two, APGD on the margin.
    Its column says so, as it is not the standard ensemble.
    """

    version: Version = "standard"
    """standard; plus, which adds untargeted APGD-DLR and FAB with five restarts; or rand, for
    randomised models: APGD-CE and APGD-DLR on gradients averaged over 20 passes."""

    def members(self, threat: Threat, classes: int = ENOUGH_CLASSES) -> Mapping[str, Attack]:
        often = 5 if threat.norm == "L1" else 1
        targeted = ("apgd-t", APGDTargeted(targets=5 if threat.norm == "L1" else 9))
        fab_t, square = FABTargeted(within=True), Square(rescale=False)  # as the official code
        compositions: dict[Version, dict[str, Attack]] = {
            "standard": {
                "apgd-ce": CrossEntropy(restarts=often),
                **_first_defined(classes, targeted, *_untargeted(restarts=often)),
                "fab-t": fab_t,
                "square": square,
            },
            "plus": {
                "apgd-ce": CrossEntropy(restarts=5),
                **_first_defined(classes, *_untargeted(restarts=5)),
                "fab": FAB(restarts=5, within=True),
                "square": square,
                **_first_defined(classes, targeted),
                "fab-t": fab_t,
            },
            "rand": {
                "apgd-ce": CrossEntropy(eot=20),
                **_first_defined(classes, *_untargeted(eot=20)),
            },
        }
        return compositions[self.version]

    def first_members(self, stages: Sequence[Stage]) -> int | None:
        """Return the stages up to the last of AutoPGD; FAB and Square are in the tail always."""
        return 1 + max(at for at, stage in enumerate(stages) if isinstance(stage.attack, APGD))

    def variant(self, threat: Threat, classes: int) -> str:
        mine, usual = self.members(threat, classes), self.members(threat)
        return "" if [*mine] == [*usual] else f"{classes} classes: {' + '.join(mine)}"


def _untargeted(restarts: int = 1, eot: int = 1) -> tuple[tuple[str, Attack], ...]:
    """Return the untargeted losses beside the cross-entropy, with the one that is preferred first.

    The ratio of three logits is not defined for two classes, where the margin takes its place.
    """
    return (
        ("apgd-dlr", LogitRatio(restarts=restarts, eot=eot)),
        ("apgd-margin", LogitMargin(restarts=restarts, eot=eot)),
    )


def _first_defined(classes: int, *choices: tuple[str, Attack]) -> dict[str, Attack]:
    """Return the first of the attacks that is defined for so many classes, or none."""
    defined = [(name, attack) for name, attack in choices if attack.needs <= classes]
    return dict(defined[:1])
