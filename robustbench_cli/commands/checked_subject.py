"""What the checks of an evaluation know of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from robustbench_cli.attacks import Stage
from robustbench_cli.audit import Check
from robustbench_cli.audit._budget import planned_passes
from robustbench_cli.audit._probe import Copy
from robustbench_cli.commands.eval_request import RunBattery
from robustbench_cli.commands.sweep import SweepPoint
from robustbench_cli.core.threat import Threat
from robustbench_cli.data import Split
from robustbench_cli.distributed.group import Shard


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

    def suits(self, check: type[Check]) -> bool:
        """Return whether what a check needs is there: those of gradients need some."""
        return self.differentiable or "gradients" not in check.needs

    @property
    def stages(self) -> dict[str, list[Stage]]:
        """The stages of each attack without a target, by label; none if another model's."""
        todo, classes = () if self.transferred else self.untargeted, len(self.data.classes)
        return {p.label: p.attack.stages(p.threat, classes) for p in todo}

    @property
    def planned(self) -> int:
        """The passes of an image that withstands every attack."""
        classes = len(self.data.classes)
        every = () if self.transferred else self.todo
        return sum(planned_passes(p.attack.stages(p.threat, classes)) for p in every)

    @property
    def untargeted(self) -> Sequence[SweepPoint]:
        """The attacks whose robust accuracies are compared."""
        return [point for point in self.todo if point.attack.target is None]
