"""Deep pursuit (Cazenavette, Murdock & Lucey, 2021), https://arxiv.org/abs/2011.14427.

The codes of all layers are found together, as one sparse coding problem.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from robustbench_cli.core.errors import UserError
from robustbench_cli.models import MODELS
from robustbench_cli.models._pursuit import (
    Codes,
    PursuitBody,
    PursuitConfig,
    TiedLayer,
    squared_norm,
)


@MODELS.register("deep-pursuit")
@dataclass(frozen=True, kw_only=True)
class DeepPursuit(PursuitConfig):
    """Features are codes of one problem over all layers, after T proximal steps of size 1/L.

    The solver starts from the feed-forward network's codes.  L is the squared norm of the operator
    over all layers, and thresholds are b/L: the proximal gradient of the objective.  (The thesis
    that re-implements the paper thresholds by b.)
    """

    sequential: bool = False
    """Update one layer after the other instead of all at once; the fixed points are the same."""

    def body(self, layers: Sequence[TiedLayer], skips: Sequence[int | None]) -> "DeepPursuitBody":
        if self.sequential and self.accelerated:
            raise UserError(
                "model 'deep-pursuit': sequential updates are not accelerated; choose one of both"
            )
        return DeepPursuitBody(
            layers,
            skips,
            iterations=self.iterations,
            accelerated=self.accelerated,
            power_iterations=self.power_iterations,
            sequential=self.sequential,
        )


class DeepPursuitBody(PursuitBody):
    """Minimises the objective over the codes of all layers."""

    def __init__(
        self,
        layers: Sequence[TiedLayer],
        skips: Sequence[int | None],
        *,
        iterations: int,
        accelerated: bool = False,
        power_iterations: int = 30,
        sequential: bool = False,
    ) -> None:
        super().__init__(
            layers,
            skips,
            iterations=iterations,
            accelerated=accelerated,
            power_iterations=power_iterations,
        )
        self.sequential = sequential

    def lipschitz(self) -> Tensor:
        """Return L: the squared norm of the operator that joins all layers."""
        start = tuple(layer.start for layer in self.layers)
        below = self.layers[0].synthesis(start[0]).detach() * 0

        def square(codes: Codes) -> Codes:
            return self.adjoint(tuple(-r for r in self.residuals(below, codes)))

        return squared_norm(square, start, self.power_iterations)

    def solve(self, x: Tensor) -> Codes:
        codes = self.feed_forward(x)
        if not self.iterations:
            return codes
        size = 1 / self.lipschitz()

        def moved(ahead: Codes, rows: Sequence[int]) -> Codes:
            slopes = self.adjoint(self.residuals(x, ahead))
            return tuple(
                F.relu(z + size * (slopes[j] - self.layers[j].threshold)) if j in rows else z
                for j, z in enumerate(ahead)
            )

        every = range(len(self.layers))
        groups: list[Sequence[int]] = [[j] for j in every] if self.sequential else [every]

        def step(ahead: Codes) -> Codes:
            for rows in groups:
                ahead = moved(ahead, rows)
            return ahead

        return self.iterated(codes, step)
