"""Margin decomposition, MD and MDMT (Jiang, Ma et al., 2020), https://arxiv.org/abs/2006.13726."""

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, State, Task
from robustbench_cli.attacks._decomposition import ROUNDS, MarginDecomposition, MarginTerms
from robustbench_cli.attacks.pgd import MOST_TARGETS
from robustbench_cli.core import losses
from robustbench_cli.core.gradient_ascent import Steps, StepSize


@ATTACKS.register("md", pattern=r"md-?(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class MD(MarginDecomposition):
    """PGD that climbs one logit of the margin alone before it climbs the margin.

    In z_max - z_y the gradient of one logit can drown that of the other, so that every attack on
    margins and on the cross-entropy runs the wrong way.  Two rounds, each from a start of its own:
    the first half of the steps, of size 2 eps, climbs -z_y in round 0 and the largest wrong logit
    in round 1 (the very first step climbs z_y); the second half climbs the margin with steps of
    eps/4.
    """

    steps: Steps = 40
    """Gradient steps of each round."""
    first_step: StepSize = 2.0
    """Size of the steps that climb a single logit, as a fraction of eps."""

    def terms(self, logits: Tensor, state: State, task: Task) -> MarginTerms:
        return _logit_terms(losses.largest_wrong(logits, task.y), losses.picked(logits, task.y))

    def step_sizes(self, step_index: Tensor) -> Tensor:
        early = step_index < max(1.0, self.change_point)
        return torch.where(early, self.first_step, self.stride)


@ATTACKS.register("mdmt", pattern=r"mdmt-?(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class MultiTargetedMD(MD):
    """MD towards one wrong class after the other, two rounds each.

    With more than 20 wrong classes, towards the 20 most likely ones.
    """

    def restarts_or_targets(self, classes: int) -> int:
        return super().restarts_or_targets(classes) * min(classes - 1, MOST_TARGETS)

    def begin(self, task: Task) -> State:
        targets = min(task.clean.shape[1] - 1, MOST_TARGETS)
        # Rank 1 is the predicted class, the true one where an attack has anything to do.
        rank = 2 + task.restart_or_target // ROUNDS % targets
        return {**super().begin(task), "target": task.ranked(rank)}

    def terms(self, logits: Tensor, state: State, task: Task) -> MarginTerms:
        return _logit_terms(losses.picked(logits, state["target"]), losses.picked(logits, task.y))


def _logit_terms(rival: Tensor, true: Tensor) -> MarginTerms:
    return MarginTerms(true, -true, rival, rival - true)
