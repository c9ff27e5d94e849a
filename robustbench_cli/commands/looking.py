"""Looks at the model of an evaluation, before its attacks and after them, within a budget."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from robustbench_cli.audit import CHECKS, ModelCheck
from robustbench_cli.audit._budget import (
    BROKEN_EARLY,
    CONFIRMED,
    operations,
    probe_images,
)
from robustbench_cli.audit._probe import Probe
from robustbench_cli.audit.randomness import randomised
from robustbench_cli.commands.checked_subject import CheckedSubject
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.evaluation.meter import Meter
from robustbench_cli.models.defended import defended_part
from robustbench_cli.runs.trust import Finding

SAME, DRAWS = 2, 10
"""The images that are shown to the model again and again, and how often."""
AUDITED = 128
"""Images that are looked at in an audit, before the attacks and again after them."""
ENDED = 3
"""Passes of a fresh copy over the last images of an example, after the attacks, on average."""


@dataclass
class Looking:
    """Makes the checks of a model, on a few images before the attacks and on others after them.

    What is found on very few images is told only if it is found on some more of them, too.
    """

    subject: CheckedSubject
    random: bool = False
    """True if the model is randomised."""
    images: int = 0
    """The number of images that were looked at."""
    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0
    _told: set[str] = field(default_factory=set)
    """The checks that have found something."""
    _ends: Callable[[Tensor, Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        every = [CHECKS.build(Spec(name)) for name in CHECKS.names()]
        self._checks = [
            each
            for each in every
            if isinstance(each, ModelCheck) and self.subject.suits(type(each))
        ]
        self._stages = self.subject.stages
        self.flops = operations(self.subject.model, self.subject.data.images(slice(1)))
        self.planned = self.subject.planned(self.flops)
        """Passes of an image that withstands all attacks."""
        declared = defended_part(self.subject.model)
        # However seldom its draws matter.
        self.random |= declared is not None and declared.randomised
        together = [stage for stages in self._stages.values() for stage in stages]
        self._cost = sum(each.cost(together) for each in self._checks)
        self.forwards = 1

    def before(self) -> list[Finding]:
        """Look at the model before any attack, and find out whether it is randomised."""
        n, cost = len(self.subject.data), 2 * self._cost + ENDED
        count = probe_images(n, BROKEN_EARLY * self.planned * n, cost, self.flops)
        return self._look("checks", self._in_audit(count))

    def after(self, count: int, ends: Callable[[Tensor, Tensor], Tensor]) -> list[Finding]:
        """Look again, at other images if there are any: a model may change by being used.

        Args:
            ends: returns the images that attacks ended with of some examples, and random starts for
                those that were not attacked.
        """
        self._ends = ends
        return self._look("checks after the attacks", count)

    def images_after(self, passes: int) -> int:
        """Return at how many images to look after attacks that took so many passes."""
        spent = self.forwards + self.backwards
        n, cost = len(self.subject.data), self._cost + ENDED
        return self._in_audit(probe_images(n, passes, cost, self.flops, spent=spent))

    def _in_audit(self, count: int) -> int:
        """Return the number of images to look at: in an audit it does not depend on the cost."""
        return min(len(self.subject.data), AUDITED) if self.subject.battery else count

    def find_randomness(self) -> None:
        """Find out whether the model is randomised, by showing it the same images again."""
        started, meter = time.perf_counter(), Meter(self.subject.model)
        few = self.subject.data.images(slice(CONFIRMED))
        # Many passes over a few images: a model that draws once per call may repeat itself often.
        repeated = randomised(meter, few[:SAME], passes=DRAWS)
        self.random |= repeated or randomised(meter, few, passes=2)
        self.count(meter.forwards, meter.backwards, started)

    def count(self, forwards: int, backwards: int, started: float) -> None:
        """Add to the cost of the checks."""
        self.forwards += forwards
        self.backwards += backwards
        self.seconds += time.perf_counter() - started

    def _look(self, purpose: str, count: int) -> list[Finding]:
        """Return what checks find; ``purpose`` keys their random numbers."""
        n = len(self.subject.data)
        closer = probe_images(n, self.planned * n, self._cost, self.flops, fewest=CONFIRMED)
        findings = self._once(purpose, count)
        if count < closer and any(each.severity != "info" for each in findings):
            findings = self._once(purpose, count := closer)
        self.images += count
        self._told |= {each.check for each in findings}
        return findings

    def _once(self, purpose: str, count: int) -> list[Finding]:
        probe = self._probe(purpose, count)
        if not self.random and not self._steady(probe):
            self.find_randomness()
            probe = self._probe(purpose, count) if self.random else probe
        started = time.perf_counter()
        before = probe.cost
        wanted = [each for each in self._checks if CHECKS.name_of(each) not in self._told]
        findings = [finding for check in wanted for finding in check.look(probe)]
        forwards, backwards = (now - old for now, old in zip(probe.cost, before, strict=True))
        self.count(forwards, backwards, started)
        return findings

    def _steady(self, probe: Probe) -> bool:
        started = time.perf_counter()
        steady = probe.steady
        self.count(*probe.cost, started)
        return steady

    def _probe(self, purpose: str, count: int) -> Probe:
        subject, data = self.subject, self.subject.data
        rows = torch.arange(self.images, self.images + count, device=data.y.device) % len(data)
        probe = Probe(
            model=subject.model,
            x=data.images(rows),
            y=data.y[rows],
            threat=subject.threat.probed.only(rows),
            attacked=subject.threat.only(rows),
            noise=Noise(subject.seed, data.ids[rows]).fork(purpose),
            random=self.random,
            copy=subject.copy,
            stages=self._stages,
            differentiable=subject.differentiable,
            transferred=subject.transferred and bool(subject.todo),
        )
        if self._ends is None or not subject.threat.is_ball:  # they are far from that ball
            return probe
        return replace(probe, ends=self._ends(rows, probe.start), _copies=[])
