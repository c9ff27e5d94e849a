"""The checks of one evaluation: before its attacks, and after all of them."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torch import nn

from robustbench_cli.audit import CHECKS, BatteryCheck, Evidence, VerdictCheck
from robustbench_cli.audit._budget import MOST, control_images
from robustbench_cli.audit._evidence import Replay
from robustbench_cli.audit._probe import Copy
from robustbench_cli.commands.attack_columns import AttackColumns
from robustbench_cli.commands.attack_outcomes import AttackOutcomes
from robustbench_cli.commands.attack_summary import judged_attack
from robustbench_cli.commands.budgeted import budget_findings, worst_with_budget
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
from robustbench_cli.commands.looking import AUDITED, Looking
from robustbench_cli.commands.sweep import SweepPoint
from robustbench_cli.commands.targeted import judged_target
from robustbench_cli.commands.within import sample_findings, worst_of_samples
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.data import Split
from robustbench_cli.distributed.group import Shard
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


@dataclass
class Checking:
    """The checks of one evaluation, and what they have found so far."""

    subject: CheckedSubject
    enabled: bool
    note: Callable[[str], None]
    findings: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._looking = Looking(self.subject)
        every = [CHECKS.build(Spec(name)) for name in CHECKS.names()]
        self._verdict_checks = [
            each
            for each in every
            if isinstance(each, VerdictCheck) and self.subject.suits(type(each))
        ]
        self._through: list[SweepPoint] = []
        # Enough for the look before the attacks, and for that at other images after them.
        self._final = FinalImages(2 * (AUDITED if self.subject.battery else MOST))

    @property
    def flops(self) -> float:
        """Floating-point operations of a pass of the model, per image."""
        return self._looking.flops

    @property
    def random(self) -> bool:
        """True if the model is randomised."""
        return self._looking.random

    def before(self) -> None:
        """Look at the model on a few images, before any attack."""
        if self.enabled:
            self._found(self._looking.before())
        else:
            self._looking.find_randomness()

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
        found, targeted, control = outcomes.attacks, outcomes.targeted, None
        # Verdicts are compared of attacks that are through; those on some images mislead.
        self._through = [p for p in self.subject.untargeted if not columns[p.label].pending]
        if self.enabled and self._through:
            passes = outcomes.passes + len(clean.arrays["share"])
            control = self._judge(columns, clean, attacks, passes)
        # Not one of the checks that can be left out: it is about how the attack was run.
        self.findings.extend(sample_findings(found))
        self.findings.extend(budget_findings(self.subject.budget, found, clean))
        checked = self._checked
        whole = checked is not None and checked.all_made
        trusts = {label: trust_in(self.findings, label, checked=whole) for label in found}
        # No check looks at an attack with a target, only at the model.
        aimed = {label: trust_in(self.findings, label, checked=False) for label in targeted}
        return {
            "attacks": {label: replace(o, trust=trusts[label]) for label, o in found.items()},
            "targeted": {label: replace(o, trust=aimed[label]) for label, o in targeted.items()},
            "findings": self.findings,
            "checked": checked,
            "clean_trust": trust_in_clean(self.findings, checked=bool(checked)),
            "worst_case_trust": worst_with_budget(
                found, worst_of_samples(found, trust_in_worst(list(trusts.values())))
            ),
            "control": control,
        }

    def _judge(
        self,
        columns: Mapping[str, AttackVerdicts],
        clean: AttackVerdicts,
        attacks: AttackColumns,
        passes: int,
    ) -> Outcome | None:
        """Run the checks of the verdicts; return the outcome of the control, if there was one.

        Args:
            passes: that the evaluation took.
        """
        subject, classes = self.subject, len(self.subject.data.classes)
        evidence = Evidence(
            right=clean.arrays["share"] > 0,
            classes=classes,
            answers=clean.arrays["prediction"],
            attacks=[
                judged_attack(point, columns[point.label], clean, classes)
                for point in self._through
            ],
            random=self.random,
            targeted=[
                judged_target(p, p.attack.stages(p.threat, classes), columns[p.label])
                for p in subject.todo
                if p.attack.target is not None
            ],
        )
        control, again = self._control(evidence, attacks, clean), []
        if not self.random and not subject.transferred:
            again = attack_again(self._through, columns, attacks, clean)
        self._final.merge(subject.shard)
        count = self._looking.images_after(passes)
        replay = None if self.random else self._replayed(count)
        self._found(self._looking.after(count, self._final.ends))
        evidence = replace(
            evidence,
            random=self.random,
            control=control.masks if control else None,
            replay=replay,
            again=again,
        )
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

    def _replayed(self, most: int) -> Replay | None:
        """Show the images that the attacks ended with, at most so many, to a fresh copy."""
        started, subject = time.perf_counter(), self.subject
        replay = self._final.replay(subject.copy, subject.data, subject.threat, subject.shard, most)
        self._looking.count(self._final.passes, 0, started)
        return replay

    @property
    def coupled(self) -> bool:
        """True if a check found that answers depend on what was asked before, or beside."""
        return any(CHECKS.build(Spec(finding.check)).coupled for finding in self.findings)

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
        runs = [name for name in CHECKS.names() if self._runs(name)]
        built = {name: CHECKS.build(Spec(name)) for name in runs}
        left_out = [name for name in runs if not built[name].fits(self.subject.threat)]
        return Checked(
            names=[name for name in runs if name not in left_out],
            images=self._looking.images,
            forwards=self._looking.forwards,
            backwards=self._looking.backwards,
            seconds=round(self._looking.seconds, 4),
            left_out=left_out,
        )

    def _runs(self, name: str) -> bool:
        """Return True for a check that is run here: those of a battery belong to audits."""
        cls = CHECKS.entry(name).cls
        battery, of_verdicts = issubclass(cls, BatteryCheck), issubclass(cls, VerdictCheck)
        if self.subject.budget and of_verdicts and not self._through:
            return False  # no attack is through
        return self.subject.suits(cls) and (not battery or self.subject.battery is not None)

    def _control(
        self, evidence: Evidence, attacks: AttackColumns, clean: AttackVerdicts
    ) -> ControlResult | None:
        """Run the control attack where every attack of the evaluation follows gradients."""
        plain = all(each.gradient_only for each in evidence.attacks)
        if not evidence.attacks or not plain or self.random or self.subject.transferred:
            return None
        planned, flops = self._looking.planned, self._looking.flops
        count = control_images(evidence.n, planned, CORNERS + QUERIES, flops)
        if self.subject.battery:
            count = evidence.n
        return run_control(evidence, attacks, clean, count)

    def _found(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self.findings = [*self.findings, finding]
            self.note(finding.message)


def start_checking(
    request: EvalRequest,
    todo: Sequence[SweepPoint],
    data: Split,
    threat: Threat,
    copy: Copy,
    shard: Shard,
    note: Callable[[str], None],
    differentiable: bool = True,
) -> Checking:
    """Return the checks of an evaluation; nothing is looked at yet.

    Args:
        todo: its attacks.
        data: the images that are evaluated.
        threat: with a mask, bound to them.
        copy: makes copies of the model as it was before it was used.
        note: called with what a check finds.
        differentiable: whether a gradient passes through the model that is attacked.
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
        differentiable=differentiable,
        battery=request.battery,
        budget=request.budget,
    )
    return Checking(subject, request.config.checks, note)
