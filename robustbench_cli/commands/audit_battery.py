"""The battery of an audit: its checks, the attacks that they run, and what the record keeps."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import nn

from robustbench_cli.attacks import ATTACKS, Attack
from robustbench_cli.audit import CHECKS, Battery, BatteryCheck, JudgedAttack
from robustbench_cli.audit._series import described
from robustbench_cli.commands.attack_columns import IMAGES
from robustbench_cli.commands.attack_summary import judged_attack
from robustbench_cli.commands.audit_curves import margin_curve
from robustbench_cli.commands.context_elsewhere import context_elsewhere
from robustbench_cli.commands.eval_request import AttacksDone
from robustbench_cli.commands.sweep import SweepPoint
from robustbench_cli.commands.train import train_in_memory
from robustbench_cli.commands.train_config import resolve_train_config
from robustbench_cli.commands.workspace import Workspace
from robustbench_cli.config.schema import EvalConfig, spec_of
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.robust_shares import lowered_shares
from robustbench_cli.data import DATASETS, Split
from robustbench_cli.evaluation.verifier import Verifier
from robustbench_cli.runs.audit_result import AuditResult, BatteryAttack, LossCurve
from robustbench_cli.runs.trust import Finding

PLAIN_IMAGES = 5000
"""Training images of the plain net that images are crafted on."""
PLAIN_EPOCHS = 12
CURVE_IMAGES = 16
CONTROL = "the control (random corners, then Square)"
ELSEWHERE = ("iterations", "transfer")
"""Checks whose attacks follow another model."""
SMALL, LARGEST = 16, 64
"""Pixels a side: below the first the plain net is that of the digits; above the second there is
none."""
PLAIN_RATE = 1e-3
"""Its learning rate, of Adam."""


@dataclass
class AuditBattery:
    """Runs the battery of one audit; ``result`` holds what it found beside the findings."""

    config: EvalConfig
    workspace: Workspace
    thorough: bool = False
    attacks: list[BatteryAttack] = field(default_factory=list)
    images: dict[str, np.ndarray] = field(default_factory=dict)
    """The images (N, C, H, W) that attacks at the evaluation's own radius ended with, by label."""
    _judged: dict[str, JudgedAttack] = field(default_factory=dict)
    """The verdicts of each attack of the battery, by label."""
    done: AttacksDone | None = None
    battery: Battery | None = None

    def __call__(self, done: AttacksDone) -> Iterator[Finding]:
        """Run every battery check; yield what it finds."""
        self.done = done
        context, found = done.attacks.context, list(done.findings)
        (claimed,) = done.evidence.attacks
        self.images[claimed.label] = done.columns[claimed.label].arrays[IMAGES]
        self.battery = Battery(
            model=context.verifier.model,
            data=context.data,
            classes=done.evidence.classes,
            threat=context.threat,
            noise=context.noise.fork("battery"),
            random=done.evidence.random,
            differentiable=context.search_model.differentiable,
            right=done.evidence.right,
            claimed=claimed,
            images=torch.from_numpy(self.images[claimed.label]),
            run=self._run,
            train=lambda: self._train,
            plain=lambda: self._plain,
            thorough=self.thorough,
            found=found,
        )
        for check in (CHECKS.build(Spec(name)) for name in CHECKS.names()):
            if not isinstance(check, BatteryCheck):
                continue
            if why := self._why_not(check):
                self.battery.measured(CHECKS.name_of(check), f"not made: {why}")
                continue
            done.attacks.display.note(f"check {CHECKS.name_of(check)}")
            for finding in check.examine(self.battery):
                found.append(finding)
                yield finding

    def _why_not(self, check: BatteryCheck) -> str:
        """Return why a check cannot be made of this model under this threat; empty if it can."""
        assert self.battery is not None
        if "gradients" in check.needs and not self.battery.differentiable:
            return "no gradient passes through the model"
        if not check.fits(self.battery.threat):
            return f"it needs a ball of Linf, L2 or L1, the threat is {self.battery.threat}"
        return ""

    @property
    def standing(self) -> np.ndarray:
        """The examples that are right after the claimed attack, a mask (N)."""
        assert self.battery is not None
        return self.battery.standing

    @property
    def verifier(self) -> Verifier:
        """The model that decides."""
        assert self.done is not None
        context = self.done.attacks.context
        return context.target or context.verifier

    @property
    def stronger(self) -> dict[str, np.ndarray]:
        """What each attack at the evaluation's own radius broke of what stood, masks (N)."""
        assert self.done is not None
        same = {each.label for each in self.attacks if each.same_radius}
        found = {
            k: judged.broken & self.standing for k, judged in self._judged.items() if k in same
        }
        if (control := self.done.evidence.control) is not None:
            found[CONTROL] = control.broken & self.standing
        return found

    @property
    def own_shares(self) -> np.ndarray:
        """How often the model is right about each example under the claimed attack (N)."""
        assert self.battery is not None
        return self.battery.claimed.share

    @property
    def other_shares(self) -> dict[str, np.ndarray]:
        """The same under each attack at the evaluation's own radius (N); 1 where it was not tried.

        The control, which is short, has broken an example or it has not.
        """
        return {
            label: self._judged[label].share if label in self._judged else ~broken * 1.0
            for label, broken in self.stronger.items()
        }

    @property
    def strongest(self) -> tuple[str, np.ndarray]:
        """The attack that broke most of what stood, and a mask (N) of that; "" where none did."""
        found = {k: v for k, v in self.stronger.items() if v.any() and k in self.images}
        label = max(found, key=lambda label: int(found[label].sum()), default="")
        return label, found.get(label, np.zeros_like(self.standing))

    def curves(self) -> list[LossCurve]:
        """Return the margin over the steps of the claimed attack and of the strongest other one.

        On images that only the other one broke; where there are none, on images that stood.
        """
        assert self.done is not None
        assert self.battery is not None
        (claimed,), context = self.done.evidence.attacks, self.done.attacks.context
        label, broken = self._strongest_followed
        rows = self.battery.rows(broken if label else self.standing)[:CURVE_IMAGES]
        # The stage that broke most of them, of the claimed attack its first one.
        followed = {claimed.label: (claimed, 0)}
        if label:
            judged = self._judged[label]
            # Of a randomised model, images that are mostly wrong were broken by no stage for good.
            by = np.bincount(judged.by[broken & (judged.by >= 0)], minlength=len(judged.stages))
            followed[label] = judged, int(by.argmax())
        drawn = [
            margin_curve(_curve_label(judged, place), judged.stages[place], rows, context)
            for judged, place in followed.values()
        ]
        return [curve for curve in drawn if curve is not None]

    @property
    def _strongest_followed(self) -> tuple[str, np.ndarray]:
        """The attack on the model itself that broke most of what stood, and what it broke."""
        crafted_here = {each.label for each in self.attacks if each.check not in ELSEWHERE}
        found = {k: v for k, v in self.stronger.items() if v.any() and k in crafted_here}
        label = max(found, key=lambda label: int(found[label].sum()), default="")
        return label, found.get(label, np.zeros_like(self.standing))

    @property
    def result(self) -> AuditResult:
        """What the record keeps of the battery so far."""
        assert self.battery is not None
        return AuditResult(
            attacks=self.attacks,
            measures=self.battery.measures,
            adaptive=any("adaptive" in each.label for each in self.attacks),
            members={s.member: ATTACKS.describe(s.attack) for s in self.battery.claimed.stages},
            access=sorted({stage.attack.access for stage in self.battery.claimed.stages}),
        )

    def _run(
        self,
        check: str,
        label: str,
        attack: Attack,
        *,
        eps: float | None = None,
        among: np.ndarray | None = None,
        source: nn.Module | None = None,
        judge: nn.Module | None = None,
    ) -> JudgedAttack:
        assert self.done is not None
        assert self.battery is not None
        done, own = self.done, self.done.attacks.context
        threat = replace(self.config.threat, eps=eps) if eps is not None else self.config.threat
        point = SweepPoint(label, attack, threat, described(attack))
        column, seconds = done.attacks.fill(
            f"b{len(self.attacks)}",
            point,
            done.clean,
            among=among,
            context=context_elsewhere(own, source, judge),
        )
        judged = judged_attack(point, column, done.clean, done.evidence.classes)
        right = self.battery.right
        # Only what the evaluated model gets wrong, at the radius of the claim, lowers its number.
        same = threat.eps == self.config.threat.eps and judge is None
        tried = right if among is None else right & among
        # Of a randomised model some are mostly wrong when clean: no attack broke those.
        clean = done.clean.arrays["share"]
        judged = replace(
            judged, broken=judged.broken & tried, share=np.where(tried, judged.share, clean)
        )
        before = self.battery.claimed.share
        left = lowered_shares(before, judged.share) if same else judged.share
        self._judged[label] = judged
        if same:
            self.images[label] = column.arrays[IMAGES]
        self.attacks.append(
            BatteryAttack(
                label=label,
                check=check,
                params=dict(point.params),
                eps=threat.eps,
                tried=int(tried.sum()),
                broken=int(judged.broken.sum()),
                left=float(left.mean()),
                same_radius=same,
                forwards=int(column.arrays["forwards"].sum()),
                backwards=int(column.arrays["backwards"].sum()),
                seconds=seconds,
            )
        )
        return judged

    @cached_property
    def _train(self) -> Split | None:
        """The training images; None for images that were given in memory."""
        dataset = DATASETS.build(spec_of(self.config.dataset))
        return dataset.load("train", self.workspace.data_dir).to("cpu")

    @cached_property
    def _plain(self) -> nn.Module | None:
        """A small net trained on the same data without any defense, in evaluation mode.

        None where the data is not known, or its images are too large to learn in a minute.
        """
        shape = self._train.stored.shape if self._train else ()
        side = max(shape[2:], default=0)
        if not 0 < side <= LARGEST:
            return None
        table: Mapping[str, object] = {
            "dataset": self.config.dataset,
            "defense": {"standard": {"name": "standard"}},
            "model": {"name": "digits-cnn" if side < SMALL else "small-cnn"},
            "optimizer": {"name": "adam"},
            "schedule": {"name": "cosine"},
            "train": {
                "epochs": PLAIN_EPOCHS,
                "lr": PLAIN_RATE,
                "limit": PLAIN_IMAGES,
                "probe": 0,
            },
        }
        config = resolve_train_config(dict(table), [])
        return train_in_memory(config, self.workspace).eval().requires_grad_(False)


def _curve_label(judged: JudgedAttack, place: int) -> str:
    """Return the name of an attack, with the member that a stage belongs to if it has several."""
    several = len({stage.member for stage in judged.stages}) > 1
    return f"{judged.label}: {judged.stages[place].member}" if several else judged.label
