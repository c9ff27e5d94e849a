"""The L-BFGS attack (Szegedy et al., 2014), https://arxiv.org/abs/1312.6199.

The first adversarial attack; slow and weak, for comparison with old tables only.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, ExternalAttack, Task
from robustbench_cli.core import losses
from robustbench_cli.core.gradient_ascent import Steps
from robustbench_cli.core.registry import Number


@ATTACKS.register("lbfgs", aliases=("l-bfgs",), pattern=r"l-?bfgs-?(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class LBFGS(ExternalAttack):
    """L-BFGS-B on |x' - x|^2 + c CE(x', t) in [0, 1], with a binary search for c (section 4.1).

    The target t is the class with the second-largest clean logit.  The paper weighs |x' - x| by c
    instead; the squared norm has the same minimisers for another c and is smooth at x (as in
    CleverHans and AdverTorch, whose 9 values of c and 100 iterations are the defaults).  Any
    misclassified image that was evaluated counts, also one of a class other than t.
    """

    steps: Steps = 100
    """Most iterations of L-BFGS-B for each c."""
    searches: Annotated[int, Field(ge=1)] = 9
    """Number of values of c that are tried."""
    c: Annotated[Number, Field(gt=0)] = 1e-2
    """The first c; it is multiplied by ten until the image is classified as t."""

    norms: ClassVar[tuple[str, ...]] = ("L2",)

    @property
    def planned_passes(self) -> int:
        return 2 * self.steps

    @property
    def minimal(self) -> bool:
        return True

    def craft(self, model: Any, task: Task) -> Tensor:
        rows = zip(task.x, task.y, task.ranked(2), strict=True)
        return torch.stack([self._nearest(_Problem(model, *row)) for row in rows])

    def _nearest(self, problem: "_Problem") -> Tensor:
        """Return the nearest misclassified image found (C, H, W), else the clean image."""
        from scipy import optimize  # type: ignore[import-untyped]  # slow to import

        c, low, high = self.c, 0.0, np.inf
        for _ in range(self.searches):
            best = optimize.minimize(
                problem,
                problem.clean,
                args=(c,),
                jac=True,
                method="L-BFGS-B",
                bounds=[(0, 1)] * len(problem.clean),
                options={"maxiter": self.steps},
            )
            problem(best.x, c)
            low, high = (low, c) if problem.reached else (c, high)
            c = (low + high) / 2 if high < np.inf else 10 * c
        return problem.found


class _Problem:
    """The objective for one image; it keeps the nearest misclassified image it has evaluated."""

    def __init__(self, model: Any, x: Tensor, y: Tensor, target: Tensor) -> None:
        self.model, self.y, self.target = model, y, target
        self.clean = x.flatten().cpu().numpy().astype(np.float64)
        self.found, self.distance, self.reached = x, np.inf, False

    def __call__(self, flat: Any, c: float) -> tuple[float, Any]:
        """Return the objective at an image ``flat`` (float64, (C H W)) and its gradient there."""
        x = torch.tensor(flat).to(self.found).view(1, *self.found.shape).requires_grad_()
        with torch.enable_grad():
            logits = self.model(x)
            cost = losses.cross_entropy(logits, self.target[None])
            (grad,) = torch.autograd.grad(cost.sum(), x)
        away = flat - self.clean
        length, seen = float(away @ away), logits.argmax(1)
        self.reached = bool(seen == self.target)
        if bool(seen != self.y) and length < self.distance:
            self.found, self.distance = x.detach()[0], length
        slope = grad.flatten().cpu().numpy().astype(np.float64)
        return length + c * float(cost.detach()), 2 * away + c * slope
