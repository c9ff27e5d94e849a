"""Projected gradient descent (Madry et al., 2018), https://arxiv.org/abs/1706.06083."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from robustbench_cli.attacks import ATTACKS, Iterated, Output, State, Task
from robustbench_cli.core import losses

Climbs = Literal["ce", "cw", "margin", "dlr", "kl"]

MOST_TARGETS = 20
"""Multi-targeted attacks try the classes with the largest clean logits, at most so many."""

_LOSSES: dict[Climbs, Callable[[Tensor, Task], Tensor]] = {
    "ce": lambda logits, task: losses.cross_entropy(logits, task.y),
    "cw": lambda logits, task: losses.cw_margin(logits, task.y),
    "margin": lambda logits, task: losses.margin(logits, task.y),
    "dlr": lambda logits, task: losses.dlr(logits, task.y),
    "kl": lambda logits, task: losses.kl(logits, task.clean),
}
_NEEDS: dict[Climbs, int] = {"dlr": 3}
"""How many classes a loss needs, where two are not enough."""


@ATTACKS.register("pgd", pattern=r"pgd-?(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class PGD(Iterated):
    """Iterated steepest ascent on a loss, from a random start.

    Published defaults differ widely; these are 20 steps of eps/4 (2/255 at eps 8/255), as in
    Madry's CIFAR-10 evaluation.  TRADES' own evaluation is ``pgd20:step=3/31`` at eps 0.031.
    """

    nested_steps: ClassVar[bool] = True

    climbs: Climbs = "ce"
    """What is maximised: cross-entropy, the C&W margin with kappa 50, the plain margin, the
    logit ratio of AutoAttack, or the divergence from the clean prediction (start=gauss)."""

    @property
    def needs(self) -> int:
        return _NEEDS.get(self.climbs, self.min_classes)

    def loss(self, out: Output, state: State, task: Task, step_index: Tensor) -> Tensor:
        return _LOSSES[self.climbs](out.logits, task)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.climbs == "kl" and self.start == "clean":
            raise ValueError("the gradient of kl is zero at the clean image; use start=gauss")


@ATTACKS.register("mt", aliases=("multi-targeted",), pattern=r"mt-?(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class MultiTargeted(Iterated):
    """PGD towards every wrong class in turn, on z_t - z_y (Gowal et al., 2019).

    https://arxiv.org/abs/1910.09338.  With more than 20 wrong classes, the 20 most likely ones.
    """

    def restarts_or_targets(self, classes: int) -> int:
        return self.restarts * min(classes - 1, MOST_TARGETS)

    def begin(self, task: Task) -> State:
        wrong = min(task.clean.shape[1] - 1, MOST_TARGETS)
        return {**super().begin(task), "target": task.ranked(2 + task.restart_or_target % wrong)}

    def loss(self, out: Output, state: State, task: Task, step_index: Tensor) -> Tensor:
        return losses.lead(out.logits, task.y, state["target"])
