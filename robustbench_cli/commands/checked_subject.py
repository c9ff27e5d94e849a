"""What the checks of an evaluation know of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from robustbench_cli.attacks import Stage
from robustbench_cli.audit import Check
from robustbench_cli.audit._budget import PER_SECOND, planned_passes
from robustbench_cli.audit._probe import Copy
from robustbench_cli.commands.eval_request import RunBattery
from robustbench_cli.commands.sweep import SweepPoint
from robustbench_cli.core.threat import Threat
from robustbench_cli.data import Split
from robustbench_cli.distributed.group import Shard
from robustbench_cli.evaluation.budget import Budget


@dataclass(frozen=True, kw_only=True)
class CheckedSubject:
    """What checks need to know of the evaluation that they belong to."""

    model: nn.Module
    copy: Copy
    data: Split
    threat: Threat
    """With a mask, bound to all images of ``data``."""
    seed: int
    shard: Shard
    todo: Sequence[SweepPoint]
    transferred: bool
    """True if the images are crafted on another model."""
    differentiable: bool = True
    """True if a gradient passes through the model that is attacked."""
    battery: RunBattery | None = None
    """The battery of an audit: with one, checks look at more images."""
    budget: Budget | None = None
    """What the evaluation may spend; None: whatever it takes."""

    def suits(self, check: type[Check]) -> bool:
        """Return whether what a check needs is there: those of gradients need some."""
        return self.differentiable or "gradients" not in check.needs

    @property
    def stages(self) -> dict[str, list[Stage]]:
        """The stages of each attack without a target, by label; none if another model's."""
        todo, classes = () if self.transferred else self.untargeted, len(self.data.classes)
        return {p.label: p.attack.stages(p.threat, classes) for p in todo}

    def planned(self, flops: float) -> float:
        """Return the passes of an image that withstands every attack; its share of a budget, if
        that is less.

        Args:
            flops: floating-point operations of a pass.
        """
        classes = len(self.data.classes)
        every = () if self.transferred else self.todo
        whole = sum(planned_passes(p.attack.stages(p.threat, classes)) for p in every)
        if self.budget is None:
            return whole
        return min(whole, self.budget.in_passes(PER_SECOND / flops) / max(1, len(self.data)))

    @property
    def untargeted(self) -> Sequence[SweepPoint]:
        """The attacks whose robust accuracies are compared."""
        return [point for point in self.todo if point.attack.target is None]
