"""Which wrong class is nearest to an image, were the model linear around it.

MALT (Melamed, Yehudai and Shamir, 2024), https://arxiv.org/abs/2407.02240: the distance to class c
is (z_y - z_c) over the dual norm of the gradient of z_c - z_y.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from robustbench_cli.attacks import IterativeAttack, Observation, Output, Stage, State, Task
from robustbench_cli.core import losses
from robustbench_cli.evaluation.attack_loop import make_task
from robustbench_cli.evaluation.eval_context import EvalContext
from robustbench_cli.evaluation.search_model import SearchModel

MOST_COMPARED = 100
"""The most wrong classes whose distance is measured, those with the largest logits."""


@dataclass(frozen=True, kw_only=True)
class _Lead(IterativeAttack):
    """The lead of a class over the true one: what a pass differentiates."""

    eot: int = 1

    @property
    def draws(self) -> int:
        return self.eot

    def begin(self, task: Task) -> State:
        return {"x": task.x}

    def loss(self, out: Output, state: State, task: Task, step_index: Tensor) -> Tensor:
        return losses.lead(out.logits, task.y, state["class"])

    def move(self, state: State, observation: Observation, task: Task) -> State:
        return state

    def over(self, state: State, step_index: Tensor) -> Tensor:
        return step_index >= 0


class NearestClasses:
    """The order of the classes of each example, worked out when a stage first asks for it."""

    def __init__(self, examples: int) -> None:
        self._known = torch.zeros(examples, dtype=torch.bool)
        self._order: Tensor | None = None

    def context_for(
        self,
        stage: Stage,
        rows: Tensor,
        context: EvalContext,
        exact: SearchModel,
        arrays: dict[str, np.ndarray],
    ) -> EvalContext:
        """Return the context of a stage, with the order of the classes if its attack asks for it.

        The passes that it takes are added to the costs of the examples.

        Args:
            rows: the examples that the stage is to attack (B, int64).
            arrays: of the attack's verdicts: ``forwards`` and ``backwards`` (N).
        """
        if not stage.attack.nearest_first or not len(rows):
            return context
        fresh = rows[~self._known[rows.cpu()].to(rows.device)]
        forwards = backwards = 0
        context.data.expect(fresh)
        for part in torch.split(fresh, context.slots) if len(fresh) else ():
            order, forwards, backwards = classes_by_distance(stage, part, context, exact)
            if self._order is None:
                self._order = order.new_zeros(len(self._known), order.shape[1])
            self._order[part] = order
        self._known[fresh.cpu()] = True
        arrays["forwards"][fresh.cpu().numpy()] += forwards
        arrays["backwards"][fresh.cpu().numpy()] += backwards
        return replace(context, class_order=self._order)


def classes_by_distance(
    stage: Stage, rows: Tensor, context: EvalContext, exact: SearchModel
) -> tuple[Tensor, int, int]:
    """Return the classes of some examples: the true one, then the wrong ones, the nearest first.

    Classes beyond the first 100 wrong ones keep the order of their logits, behind the others.

    Returns:
        Classes (B, K) int64, and the forward and backward passes per example.
    """
    probe = _Lead(eot=stage.attack.draws)
    asked = Stage("nearest classes", probe, 0)
    task = make_task(asked, rows, context)
    order = task.clean.scatter(1, task.y[:, None], torch.inf).argsort(
        dim=1, descending=True, stable=True
    )
    step_index = torch.zeros_like(rows)
    forwards, backwards = 1, 0
    distances = []
    for rank in range(1, min(order.shape[1], MOST_COMPARED + 1)):
        state = {"x": task.x, "class": order[:, rank]}
        seen, *cost = exact.observe_alike(probe, state, task, step_index)
        steepest = task.threat.steepest(seen.grad)
        # The inner product with the steepest step of unit length is the dual norm.
        dual = (steepest * seen.grad).flatten(1).sum(1).to(seen.loss)
        distances.append(-seen.loss / dual.clamp_min(1e-30))
        forwards, backwards = forwards + cost[0], backwards + cost[1]
    nearest = torch.stack(distances, 1).argsort(dim=1, stable=True)
    compared = order[:, 1 : 1 + nearest.shape[1]].gather(1, nearest)
    return (
        torch.cat([order[:, :1], compared, order[:, 1 + nearest.shape[1] :]], 1),
        forwards,
        backwards,
    )
