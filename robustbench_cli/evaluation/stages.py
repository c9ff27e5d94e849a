"""A model under an attack, stage by stage: examples that still stand go on to the next stage."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from robustbench_cli.attacks import Stage
from robustbench_cli.evaluation.active_batch import StageResult
from robustbench_cli.evaluation.eval_context import EvalContext
from robustbench_cli.evaluation.fitting import charge_fit, fitted_context
from robustbench_cli.evaluation.nearest_classes import NearestClasses
from robustbench_cli.evaluation.out_of_memory import halving
from robustbench_cli.evaluation.repeated_stage import run_and_repeat
from robustbench_cli.evaluation.search_model import (
    SearchModel,
)
from robustbench_cli.evaluation.stage_cost import most_passes
from robustbench_cli.evaluation.transfer_verdicts import judged_by_target
from robustbench_cli.evaluation.view_search import BuiltViews

VERDICT_COLUMNS: dict[str, tuple[type[np.generic], float]] = {
    "prediction": (np.int32, -1),
    "share": (np.float32, 0.0),
    "margin": (np.float32, -np.inf),
    "norm": (np.float32, 0.0),
    "step": (np.int32, -1),
    "by": (np.int16, -1),
    "stages": (np.int16, 0),
    "flat": (np.bool_, False),
    "forwards": (np.int64, 0),
    "backwards": (np.int64, 0),
}
"""The arrays of the verdicts on an attack: dtype, and the value before anything is known."""


@dataclass(frozen=True)
class AttackVerdicts:
    """The verdicts of one attack on N examples.

    What one stage has broken is attacked by no later one, unless the attack is minimal.
    """

    arrays: dict[str, np.ndarray]
    """By name, each (N): ``prediction``, ``margin`` and ``norm`` are of the adversarial image, else
    of the image with the highest margin; ``share`` is how often the prediction is right (0 or 1,
    unless the model is randomised); ``step`` is the number of steps before the success, ``by`` the
    stage that broke the example (-1: none); ``stages`` counts the stages that it has been through;
    ``flat`` is whether one of them had no gradient where it began; ``forwards`` and ``backwards``
    are the passes that it cost."""
    pending: dict[int, np.ndarray] = field(default_factory=dict)
    """By stage, the examples (N, bool) that it is still to attack, because a budget ran out."""

    @classmethod
    def empty(cls, n: int) -> "AttackVerdicts":
        """Return the verdicts on ``n`` examples of which nothing is known yet."""
        return cls({name: np.full(n, void, kind) for name, (kind, void) in VERDICT_COLUMNS.items()})

    @property
    def broken(self) -> np.ndarray:
        """The examples that a stage has broken, a mask (N)."""
        return np.asarray(self.arrays["by"] >= 0)

    @property
    def undecided(self) -> np.ndarray:
        """The examples that any stage is still to attack, a mask (N)."""
        none = np.zeros(len(self.broken), bool)
        return np.asarray(np.any([none, *self.pending.values()], axis=0))

    def leave(self, stage: int, examples: np.ndarray, minimal: bool) -> None:
        """Note those of the examples, a mask (N), that a budget has left for the stage to do."""
        if (left := examples & self.waiting(stage, minimal)).any():
            self.pending[stage] = left

    @property
    def spent(self) -> np.ndarray:
        """The passes that each example has cost so far, forward and backward (N)."""
        return np.asarray(self.arrays["forwards"] + self.arrays["backwards"])

    def charge(self, examples: np.ndarray, forwards: int, backwards: int) -> None:
        """Divide passes among the examples, a mask (N) that is not empty; shares are rounded up."""
        share = int(examples.sum())
        self.arrays["forwards"][examples] += -(-forwards // share)
        self.arrays["backwards"][examples] += -(-backwards // share)

    def waiting(self, stage: int, minimal: bool) -> np.ndarray:
        """Return a mask (N) of the examples that this stage is to attack.

        A minimal attack goes on with broken examples: another stage may find a nearer image.
        """
        return (~self.broken | minimal) & (self.arrays["stages"] <= stage)

    def put(self, stage: int, result: StageResult, minimal: bool) -> np.ndarray:
        """Take in the results of a stage; return a mask of those whose image is the best so far.

        The image that counts is the broken one, else the one with the highest margin.
        """
        rows, arrays = result.rows.numpy(), self.arrays
        better = result.margin.numpy() >= arrays["margin"][rows]
        better = better if minimal else better | result.broken.numpy()
        for name in ("prediction", "share", "margin", "norm", "step"):
            arrays[name][rows[better]] = getattr(result, name).numpy()[better]
        arrays["by"][rows[result.broken.numpy() & better]] = stage
        arrays["stages"][rows] = stage + 1
        arrays["flat"][rows] |= result.zero_gradient_at_start.numpy()
        arrays["forwards"][rows] += result.forwards.numpy()
        arrays["backwards"][rows] += result.backwards.numpy()
        return np.asarray(better)


class Progress(NamedTuple):
    """A stage of an attack, and the results of some examples that are done with it."""

    number: int
    """The stage's position in the attack, from 0."""
    stage: Stage
    found: StageResult
    kept: np.ndarray
    """True for images that are the best so far of their example (B, bool)."""


def clean(context: EvalContext, rows: Tensor) -> Iterator[StageResult]:
    """Yield the verdicts on the clean images at the positions ``rows`` (B), batch by batch.

    Raises:
        UserError: the model's logits are not finite.
    """

    def batches(waiting: Tensor, size: int) -> Iterator[StageResult]:
        for part in torch.split(waiting, size):
            if context.allowance.expired:
                return
            x, y = context.data.images(part), context.data.y[part]
            threat, noise = context.threat.only(part), context.noise.only(part).fork("clean")
            verdict = context.verifier.verdict(x, x, y, threat, noise=noise).of_clean_images
            yield StageResult.judged(part, x, torch.zeros_like(part), verdict)

    context.data.expect(rows)
    return halving(batches, rows, context.slots, context.note)


def run_stages(
    stages: list[Stage],
    column: AttackVerdicts,
    standing: np.ndarray,
    context: EvalContext,
    exact: SearchModel,
    enough: Callable[[int], bool] = lambda _: False,
) -> Iterator[Progress]:
    """Run every stage on the examples that the ones before it left; yield results as they come.

    Args:
        column: the verdicts so far (of an evaluation that is resumed); they are filled in.
        standing: the examples to attack, a mask (N): those that are right on the clean image.
        context: its search model is used wherever a faster model will do.
        exact: the model as it is, for the rest.
        enough: asked with a stage's number after it, whether to leave out those that follow.
    """
    views, nearest = BuiltViews(context), NearestClasses(len(column.broken))
    for number, stage in enumerate(stages):
        if number and enough(number - 1):
            return
        attacked = standing & column.waiting(number, stage.attack.minimal)
        if stage.most_spent is not None:
            attacked &= column.spent <= stage.most_spent
        attacked &= not (stage.deterministic_only and context.verifier.random)
        rows = torch.from_numpy(attacked.nonzero()[0]).to(context.data.y.device)
        searched, itself = context, exact
        if context.allowance.out:
            column.leave(number, attacked, stage.attack.minimal)
            continue
        if stage.view is not None:
            view = views.search_model(stage.view) if len(rows) else None
            if view is None:
                continue
            column.charge(attacked, *views.unpaid())
            searched, itself = replace(context, search_model=view), view
        if not (stage.attack.black_box or itself.differentiable):
            continue
        searched, *cost = fitted_context(number, stage, searched, exact)
        charge_fit(column.arrays, attacked, int(standing.sum()), *cost)
        for block in context.allowance.blocks(rows, most_passes(stage, searched, itself)):
            shown = nearest.context_for(stage, block, searched, itself, column.arrays)
            for result in run_and_repeat(stage, block, column.arrays, shown, itself):
                if not len(result.rows):
                    continue
                if context.target:
                    result = judged_by_target(result, context, stage.attack.minimal)
                kept = column.put(number, result, stage.attack.minimal)
                yield Progress(number, stage, result, kept)
        column.leave(number, attacked, stage.attack.minimal)
