"""AutoAttack (Croce & Hein, 2020), https://arxiv.org/abs/2003.01690.

L1 composition: Croce & Hein (2021), https://arxiv.org/abs/2103.01208.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from robustbench_cli.attacks import ATTACKS, Attack
from robustbench_cli.attacks.apgd import CrossEntropy, LogitRatio
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
    """

    version: Version = "standard"
    """standard; plus, which adds untargeted APGD-DLR and FAB with five restarts; or rand, for
    randomised models: APGD-CE and APGD-DLR on gradients averaged over 20 passes."""

    min_classes: ClassVar[int] = 4  # as the targeted DLR loss of the standard version

    @property
    def needs(self) -> int:
        return max(attack.needs for attack in self._members(sparse=False).values())

    def members(self, threat: Threat) -> Mapping[str, Attack]:
        return self._members(sparse=threat.norm == "L1")

    def _members(self, sparse: bool) -> Mapping[str, Attack]:
        targeted: dict[str, Attack] = {
            "apgd-t": APGDTargeted(targets=5 if sparse else 9),
            "fab-t": FABTargeted(within=True),
        }
        compositions: dict[str, dict[str, Attack]] = {
            "standard": {
                "apgd-ce": CrossEntropy(restarts=5 if sparse else 1),
                **targeted,
                "square": Square(rescale=False),  # as the official code
            },
            "plus": {
                "apgd-ce": CrossEntropy(restarts=5),
                "apgd-dlr": LogitRatio(restarts=5),
                "fab": FAB(restarts=5, within=True),
                "square": Square(rescale=False),  # as the official code
                **targeted,
            },
            "rand": {"apgd-ce": CrossEntropy(eot=20), "apgd-dlr": LogitRatio(eot=20)},
        }
        return compositions[self.version]
