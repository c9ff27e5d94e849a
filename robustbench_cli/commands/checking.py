"""The checks of one evaluation: before its attacks, and after all of them."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import nn

from robustbench_cli.attacks import Stage
from robustbench_cli.audit import (
    CHECKS,
    BatteryCheck,
    Evidence,
    ModelCheck,
    VerdictCheck,
)
from robustbench_cli.audit._budget import control_images, operations, probe_images
from robustbench_cli.audit._probe import Copy, Probe
from robustbench_cli.audit.randomness import randomised
from robustbench_cli.commands.attack_columns import AttackColumns
from robustbench_cli.commands.attack_outcomes import AttackOutcomes
from robustbench_cli.commands.attack_summary import judged_attack
from robustbench_cli.commands.checked_subject import CheckedSubject
from robustbench_cli.commands.control import (
    CORNERS,
    QUERIES,
    ControlResult,
    attack_again,
    run_control,
)
from robustbench_cli.commands.eval_request import AttacksDone, EvalRequest
from robustbench_cli.commands.final_images import FinalImages
from robustbench_cli.commands.sweep import SweepPoint
from robustbench_cli.commands.targeted import judged_target
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.data import Split
from robustbench_cli.distributed.group import Shard
from robustbench_cli.evaluation.eval_context import EvalContext
from robustbench_cli.evaluation.stages import AttackVerdicts, Progress
from robustbench_cli.models.fresh_copies import FreshCopies
from robustbench_cli.models.rejecting import rejection_of
from robustbench_cli.runs.outcomes import Outcome
from robustbench_cli.runs.trust import (
    Checked,
    Finding,
    trust_in,
    trust_in_clean,
    trust_in_worst,
)

SAME, DRAWS = 2, 10
"""The images that are shown to the model again and again, and how often."""
AUDITED = 128
"""Images that the checks before the attacks look at in an audit."""


@dataclass
class Checking:
    """The checks of one evaluation, and what they have found so far."""

    subject: CheckedSubject
    enabled: bool
    note: Callable[[str], None]
    findings: list[Finding] = field(default_factory=list)
    random: bool = False
    """True if the model is randomised."""
    _cost: tuple[float, ...] = (0.0, 0.0, 0.0)
    """Forward passes, backward passes, seconds."""

    def __post_init__(self) -> None:
        data, classes = self.subject.data, len(self.subject.data.classes)
        self._stages: dict[str, list[Stage]] = {}
        if not self.subject.transferred:
            self._stages = {
                p.label: p.attack.stages(p.threat, classes) for p in self.subject.untargeted
            }
        every = [CHECKS.build(Spec(name)) for name in CHECKS.names()]
        self._model_checks = [each for each in every if isinstance(each, ModelCheck)]
        self._verdict_checks = [each for each in every if isinstance(each, VerdictCheck)]
        self._flops = operations(self.subject.model, data.images(slice(2)))
        self._planned = self.subject.planned
        cost = sum(each.passes for each in self._model_checks)
        self.images = probe_images(len(data), self._planned, cost, self._flops)
        if self.subject.battery:
            self.images = min(len(data), AUDITED)
        self._final = FinalImages(self.images)

    def before(self) -> None:
        """Look at the model on a few images, before any attack."""
        started = time.perf_counter()
        model, few = self.subject.model, self.subject.data.images(slice(self.images))
        # Many passes over a few images: a model that draws once per call may repeat itself often.
        repeated = randomised(model, few[:SAME], passes=DRAWS)
        self.random = repeated or randomised(model, few, passes=2)
        if not self.enabled:
            return
        self._add_cost(DRAWS * len(few[:SAME]) + 2 * self.images, 0, started)
        self._look(self._model_checks, "checks")

    def _look(self, checks: Sequence[ModelCheck], purpose: str, *, ended: bool = False) -> None:
        """Make checks of the model; ``purpose`` keys their random numbers.

        Args:
            ended: whether to look at the images that attacks ended with, not at random starts.
        """
        started, data = time.perf_counter(), self.subject.data
        rows = torch.arange(self.images, device=data.y.device)
        probe = Probe(
            model=self.subject.model,
            x=data.images(rows),
            y=data.y[rows],
            threat=self.subject.threat.only(rows),
            noise=Noise(self.subject.seed, rows).fork(purpose),
            random=self.random,
            copy=self.subject.copy,
            stages=self._stages,
        )
        if ended:
            probe = replace(probe, ends=self._final.ends(probe.start))
        for check in checks:
            self._found(check.look(probe))
        self._add_cost(probe.meter.forwards, probe.meter.backwards, started)

    def watch(self, progress: Progress, labels: np.ndarray) -> None:
        """Remember the images that an attack ended with, of the examples that are looked at."""
        if self.enabled:
            self._final.watch(progress, labels)

    def conclude(
        self,
        columns: Mapping[str, AttackVerdicts],
        clean: AttackVerdicts,
        outcomes: AttackOutcomes,
        attacks: AttackColumns,
    ) -> dict[str, object]:
        """Compare the verdicts of all attacks; return the changes of the record that follow.

        Args:
            columns: the verdicts under each attack, merged over processes, by label.
            clean: those on the clean images.
            outcomes: of each attack.
            attacks: runs attacks on the evaluation's examples, as the control does.
        """
        found, targeted = outcomes.attacks, outcomes.targeted
        control = self._judge(columns, clean, attacks) if self.enabled and found else None
        checked = self._checked
        trusts = {label: trust_in(self.findings, label, checked=bool(checked)) for label in found}
        # No check looks at an attack with a target, only at the model.
        aimed = {label: trust_in(self.findings, label, checked=False) for label in targeted}
        return {
            "attacks": {label: replace(o, trust=trusts[label]) for label, o in found.items()},
            "targeted": {label: replace(o, trust=aimed[label]) for label, o in targeted.items()},
            "findings": self.findings,
            "checked": checked,
            "clean_trust": trust_in_clean(self.findings, checked=bool(checked)),
            "worst_case_trust": trust_in_worst(list(trusts.values())),
            "control": control,
        }

    def _judge(
        self, columns: Mapping[str, AttackVerdicts], clean: AttackVerdicts, attacks: AttackColumns
    ) -> Outcome | None:
        """Run the checks of the verdicts; return the outcome of the control, if there was one."""
        right = clean.arrays["share"] > 0
        classes = len(self.subject.data.classes)
        evidence = Evidence(
            right=right,
            classes=classes,
            attacks=[
                judged_attack(point, columns[point.label], clean, classes)
                for point in self.subject.untargeted
            ],
            random=self.random,
            targeted=[
                judged_target(p, p.attack.stages(p.threat, classes), columns[p.label])
                for p in self.subject.todo
                if p.attack.target is not None
            ],
        )
        control = self._control(evidence, attacks.context)
        started = time.perf_counter()
        subject, replay = self.subject, None
        if not self.random:
            replay = self._final.replay(subject.copy, subject.data, subject.threat, subject.shard)
        self._add_cost(5 * len(self._final), 0, started)
        again = []
        if not self.random and not self.subject.transferred:
            again = attack_again(self.subject.untargeted, columns, attacks.context, classes)
        evidence = replace(
            evidence, control=control.masks if control else None, replay=replay, again=again
        )
        known = {finding.check for finding in self.findings}
        repeated = [c for c in self._model_checks if c.repeated and CHECKS.name_of(c) not in known]
        self._look(repeated, "checks after the attacks", ended=True)
        for verdict_check in self._verdict_checks:
            self._found(verdict_check.judge(evidence))
        if self.subject.battery:
            done = AttacksDone(
                evidence=evidence,
                columns=columns,
                clean=clean,
                findings=self.findings,
                attacks=attacks,
            )
            self._found(self.subject.battery(done))
        return control.outcome if control else None

    @property
    def coupled(self) -> bool:
        """True if a check found that answers depend on what was asked before, or beside."""
        return any(finding.clean for finding in self.findings)

    def judged_model(self) -> nn.Module:
        """Return the model that is attacked and judged.

        It is the model itself, unless that was found to remember what it is shown: then each batch
        is shown to a fresh copy, so that numbers are those of the model as it is loaded.
        """
        model, copy = self.subject.model, self.subject.copy
        if "memory" not in {finding.check for finding in self.findings} or rejection_of(model):
            return model
        return FreshCopies(model, copy)

    @property
    def _checked(self) -> Checked | None:
        """The checks that were run and their cost; None: none were."""
        if not self.enabled:
            return None
        return Checked(
            names=[name for name in CHECKS.names() if self._runs(name)],
            images=self.images,
            forwards=int(self._cost[0]),
            backwards=int(self._cost[1]),
            seconds=round(self._cost[2], 4),
        )

    def _runs(self, name: str) -> bool:
        """Return True for a check that is run here: those of a battery belong to audits."""
        battery = issubclass(CHECKS.entry(name).cls, BatteryCheck)
        return not battery or self.subject.battery is not None

    def _control(self, evidence: Evidence, context: EvalContext) -> ControlResult | None:
        """Run the control attack where every attack of the evaluation follows gradients."""
        plain = all(each.gradient_only for each in evidence.attacks)
        if not evidence.attacks or not plain or self.random or self.subject.transferred:
            return None
        count = control_images(evidence.n, self._planned, CORNERS + QUERIES, self._flops)
        if self.subject.battery:
            count = evidence.n
        return run_control(evidence, context, self.subject.shard, count)

    def _found(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self.findings = [*self.findings, finding]
            self.note(finding.message)

    def _add_cost(self, forwards: int, backwards: int, started: float) -> None:
        more = forwards, backwards, time.perf_counter() - started
        self._cost = tuple(old + new for old, new in zip(self._cost, more, strict=True))


def start_checking(
    request: EvalRequest,
    todo: Sequence[SweepPoint],
    data: Split,
    threat: Threat,
    copy: Copy,
    shard: Shard,
    note: Callable[[str], None],
) -> Checking:
    """Return the checks of an evaluation; nothing is looked at yet.

    Args:
        todo: its attacks.
        data: the images that are evaluated.
        threat: with a mask, bound to them.
        copy: makes copies of the model as it was before it was used.
        note: called with what a check finds.
    """
    subject = CheckedSubject(
        model=request.subject.model,
        copy=copy,
        data=data,
        threat=threat,
        seed=request.config.seed,
        shard=shard,
        todo=todo,
        transferred=request.source is not None,
        battery=request.battery,
    )
    return Checking(subject, request.config.checks, note)
