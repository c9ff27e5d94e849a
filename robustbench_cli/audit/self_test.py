"""The attacks put to the test: nets that must fall, and a net whose gradients are planted dead.

Carlini et al. (2019, https://arxiv.org/abs/1902.06705): an attack that fails on an undefended net
does not work, whatever it says about a defended one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from robustbench_cli.attacks import ATTACKS, Attack, ExternalAttack
from robustbench_cli.audit import CHECKS, Battery, BatteryCheck, ModelCheck, Need, Probe
from robustbench_cli.audit._reference import ClassMeans, GradientKiller, surely_breakable
from robustbench_cli.core.registry import Number, Spec
from robustbench_cli.evaluation.batch_attack import attack_batch
from robustbench_cli.evaluation.verifier import device_of, unchanged_model
from robustbench_cli.runs.trust import Finding, Severity


@CHECKS.register("self-test")
@dataclass(frozen=True, kw_only=True)
class SelfTest(BatteryCheck):
    """Every attack must break a linear net where half of eps is enough; dead gradients are caught.

    Attacks for the nearest image are tested in thorough audits only: they cost most.
    """

    needs: ClassVar[tuple[Need, ...]] = ("a ball",)
    passes: ClassVar[float] = 2000
    severity: ClassVar[Severity] = "error"
    says: ClassVar[str] = "self-test: {what}"

    least: Number = 0.9
    """The share of the images that the claimed attack must break."""
    images: int = 12
    """The largest number of images, unless the audit is thorough."""

    def examine(self, battery: Battery) -> Iterator[Finding]:
        net = ClassMeans(battery.data, battery.classes).to(device_of(battery.model)).eval()
        x, y = battery.data.images(slice(None)), battery.data.y
        must = surely_breakable(net, x, y, battery.threat)
        rows = battery.rows(battery.some(must.cpu().numpy(), self.images))
        of = len(rows)
        if not of:
            battery.measured(
                "self-test", "not made: no image is sure to fall on the reference net at this eps"
            )
            return
        counts = {}
        for label, attack in self._attacks(battery).items():
            counts[label] = self._broken(battery, net, rows, attack)
        few = {label: count for label, count in counts.items() if count < self.least * of}
        claimed = battery.claimed.label
        said = ", ".join(f"{label} {count}" for label, count in few.items())
        text = (
            f"{len(counts) - len(few)} of {len(counts)} attacks break a linear net that must fall"
        )
        text += f" ({of} images; fewer than nine in ten: {said})" if few else f" ({of} images)"
        battery.measured("self-test", text, claimed not in few)
        if claimed in few:
            what = f"{claimed} broke {few[claimed]} of {of} images of a linear net that must fall"
            yield self.finding(of - few[claimed], of, what=what)
        caught = self._caught(battery, GradientKiller(net).eval(), rows)
        text = "a planted net without gradients was caught" if caught else "it was not caught"
        battery.measured("self-test", text, caught)
        if not caught:
            yield self.finding(of, of, what="a planted net without gradients was not caught")

    def _attacks(self, battery: Battery) -> dict[str, Attack]:
        """Return the attacks to test, the claimed one among them, by label."""
        chosen = {battery.claimed.label: battery.claimed.attack}
        for name in ATTACKS.names():
            attack = ATTACKS.build(Spec(name))
            fits = battery.threat.norm in attack.measures and battery.classes >= attack.needs
            free = attack.maskable or not battery.threat.mask
            slow = attack.minimal and not battery.thorough
            runs = not isinstance(attack, ExternalAttack) and not attack.fits
            if fits and free and not slow and runs:
                chosen.setdefault(name, attack)
        return chosen

    def _broken(self, battery: Battery, net: ClassMeans, rows: Tensor, attack: Attack) -> int:
        x, y, threat = battery.data.images(rows), battery.data.y[rows], battery.threat.only(rows)
        noise = battery.noise.only(rows).fork("self-test")
        done = attack_batch(net, x, y, attack, threat, noise)
        near = done.norm <= threat.eps * (1 + 1e-5) + 1e-6
        return int((done.broken & near).sum())

    def _caught(self, battery: Battery, killer: GradientKiller, rows: Tensor) -> bool:
        """Return whether the check for zero gradients finds the planted net."""
        check = CHECKS.build(Spec("zero-gradient"))
        assert isinstance(check, ModelCheck)
        with unchanged_model(killer):
            probe = Probe(
                model=killer,
                x=battery.data.images(rows),
                y=battery.data.y[rows],
                threat=battery.threat.only(rows),
                attacked=battery.threat.only(rows),
                noise=battery.noise.only(rows).fork("killer"),
                random=False,
                stages={battery.claimed.label: battery.claimed.stages},
            )
            return any(True for _ in check.look(probe))
