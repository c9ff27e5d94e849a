"""Feature scattering (Zhang and Wang, 2019), https://arxiv.org/abs/1907.10764."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.gradient_ascent import Loss, Steps, StepSize, ascend
from robustbench_cli.core.losses import cross_entropy, wide
from robustbench_cli.core.registry import Number
from robustbench_cli.defenses import DEFENSES, Adversarial, Recipe, _transport
from robustbench_cli.defenses._step import Passes, Step
from robustbench_cli.defenses.label_smoothing import LabelSmoothing

PLANS: dict[str, Callable[[Tensor], Tensor]] = {
    "sinkhorn": lambda cost: _transport.sinkhorn(cost, 0.01),
    "legacy": lambda cost: _transport.hurried_sinkhorn(cost, 0.01),
    "ipot": _transport.ipot,
    "uniform": _transport.uniform_plan,
    "identity": _transport.identity,
}


@DEFENSES.register("feature-scatter", aliases=("fs",))
@dataclass(frozen=True, kw_only=True)
class FeatureScatter(Adversarial):
    """Smoothed labels on a batch moved, as a whole, away from the clean batch's logits.

    What is climbed is the optimal-transport distance of the two batches, with one minus the
    cosine of logits as the cost, so examples depend on their batch: the launch script's has 60.
    Solvers are differentiated through, as in the code.  Its own solver, ``matching=legacy``,
    stops after a few rounds, far from a plan; the default converges.  Starts are clipped to
    [0, 1] here, in the code only results are.  AutoAttack finds 36.64 % where the paper's attacks
    left 60.6: always judge it by that.
    """

    steps: Steps = 1
    step: StepSize = 1.0
    perturbation: Literal["feature", "supervised", "random"] = "feature"
    """What the batch is moved by: the distance, each label's cross-entropy, or its start alone."""
    matching: Literal["sinkhorn", "legacy", "ipot", "uniform", "identity"] = "sinkhorn"
    """How the distance pairs moved with clean examples: two solvers of the regularised problem,
    one of the exact, everything with everything, or each with its own."""
    smoothing: Annotated[Number, Field(ge=0, lt=1)] = 0.5
    """The mass that each label gives to the other classes."""

    alone: ClassVar[str] = "moves a whole batch at once"

    def perturb(self, step: Step) -> Tensor:
        if self.perturbation == "random":
            return self.climb.begin(step.x, step.threat, step.noise)
        if self.perturbation == "supervised":
            return self._climbed(step, cross_entropy, step.y)
        with torch.no_grad():
            clean = step.model(step.x)
        return self._climbed(step, self.distance, clean)

    def distance(self, logits: Tensor, clean: Tensor) -> Tensor:
        """Each moved example's part (B) in the distance of the two batches of logits (B, C)."""
        cosine = F.cosine_similarity(wide(clean)[:, None], wide(logits), dim=2, eps=1e-6)
        cost = (1 - cosine).clamp(min=0)
        return (PLANS[self.matching](cost) * cost).sum(0)

    def loss(self, step: Step, logits: Passes) -> Tensor:
        smoothed = LabelSmoothing(amount=self.smoothing, over="others").criterion(step.criterion)
        return smoothed(logits["adv"], step.y)

    def check(self, recipe: Recipe, epochs: int) -> None:
        if self.start == "clean" and self.perturbation == "feature":
            raise UserError(
                "feature-scatter: start=clean is where the distance has no slope; use start=uniform"
            )
        if any(isinstance(part, LabelSmoothing) for part in recipe.modifiers):
            raise UserError("feature-scatter smooths labels itself; set its smoothing instead")

    def _climbed(self, step: Step, loss: Loss, target: Tensor) -> Tensor:
        return ascend(step.model, loss, target, step.x, step.threat, step.noise, self.climb)
