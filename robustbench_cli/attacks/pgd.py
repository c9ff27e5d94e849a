"""Projected gradient descent (Madry et al., 2018), https://arxiv.org/abs/1706.06083."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from robustbench_cli.attacks import ATTACKS, Iterated, Output, State, Task
from robustbench_cli.attacks._targeting import AimsAtClasses
from robustbench_cli.core import losses

LossName = Literal["ce", "cw", "margin", "dlr", "kl", "gce", "gce-code"]

MOST_TARGETS = 20
"""The largest number of classes that a multi-targeted attack tries, the most likely ones."""

_LOSSES: dict[LossName, Callable[[Output, Task], Tensor]] = {
    "ce": lambda out, task: task.cross_entropy(out),
    "cw": lambda out, task: losses.cw_margin(out.logits, task.y),
    "margin": lambda out, task: losses.margin(out.logits, task.y),
    "dlr": lambda out, task: task.dlr(out),
    "kl": lambda out, task: losses.kl(out.logits, task.clean),
    "gce": lambda out, task: losses.guided_complement_entropy(out.logits, task.y),
    "gce-code": lambda out, task: losses.coded_complement_entropy(out.logits, task.y),
}
"""From the model's answer to the loss (B) that is maximised."""
_NEEDED_CLASSES: dict[LossName, int] = {"dlr": 3, "gce": 3, "gce-code": 3}
"""The number of classes that a loss needs, where two are not enough."""
_NO_TARGET: dict[LossName, str] = {
    "kl": "kl leads away from the clean prediction, to no class",
    "gce": "gce is about the shares of all wrong classes, and leads to none",
    "gce-code": "gce is about the shares of all wrong classes, and leads to none",
}
"""The reasons why an attack on a loss cannot be given a target."""


@ATTACKS.register("pgd", pattern=r"pgd-?(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class PGD(Iterated):
    """Iterated steepest ascent on a loss, projected to the ball, from a random start.

    x <- project(x + step eps sign(grad)) in Linf; in L2 the step is along the normalised gradient.
    Published defaults differ widely; these are 20 steps of eps/4 (2/255 at eps 8/255), as in
    Madry's CIFAR-10 evaluation.  TRADES' own evaluation is ``pgd20:step=3/31`` at eps 0.031.
    """

    nested_steps: ClassVar[bool] = True

    climbs: LossName = "ce"
    """The loss: cross-entropy (ce), the C&W margin with kappa 50 (cw), the margin, AutoAttack's
    difference of logits ratio (dlr), the KL divergence from the clean prediction (kl, which needs
    another start than clean), or the guided complement entropy with alpha 1/3 (gce), on which a
    net trained by ``gce`` looks robust, the more so with the rounding of its authors' code
    (gce-code)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.climbs == "kl" and self.start == "clean":
            raise ValueError("the gradient of kl is zero at the clean image; use start=gauss")

    @property
    def no_target(self) -> str:
        return _NO_TARGET.get(self.climbs, "")

    @property
    def needs(self) -> int:
        return _NEEDED_CLASSES.get(self.climbs, self.min_classes)

    @property
    def needs_float32(self) -> bool:
        # The divergence from the clean prediction is smaller than rounding at such a start.
        return self.climbs == "kl" and self.start == "gauss"

    def loss(self, out: Output, state: State, task: Task, step_index: Tensor) -> Tensor:
        return _LOSSES[self.climbs](out, task)


@ATTACKS.register("mt", aliases=("multi-targeted",), pattern=r"mt-?(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class MultiTargeted(AimsAtClasses, Iterated):
    """PGD towards one wrong class after the other, on z_t - z_y (Gowal et al., 2019).

    https://arxiv.org/abs/1910.09338.  With more than 20 wrong classes, the 20 most likely ones.
    """

    # Not ``nested_steps``: a longer run towards the first class may break an example before the
    # next class is tried, which a shorter run leaves to that class.

    def restarts_or_targets(self, classes: int) -> int:
        return self.restarts * min(classes - 1, MOST_TARGETS)

    def begin(self, task: Task) -> State:
        targets = min(task.clean.shape[1] - 1, MOST_TARGETS)
        rank = 2 + task.restart_or_target % targets  # 1 is the predicted class
        return {**super().begin(task), "target": task.ranked(rank)}

    def loss(self, out: Output, state: State, task: Task, step_index: Tensor) -> Tensor:
        return losses.lead(out.logits, task.y, state["target"])
