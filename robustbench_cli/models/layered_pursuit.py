"""Layered basis pursuit (Papyan, Romano & Elad, 2017), https://arxiv.org/abs/1607.08194.

The method that deep pursuit is compared with (Cazenavette et al., 2021,
https://arxiv.org/abs/2011.14427): the layers' problems are solved one after the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from robustbench_cli.models import MODELS
from robustbench_cli.models._pursuit import (
    Codes,
    PursuitBody,
    PursuitConfig,
    TiedLayer,
    squared_norm,
)


@MODELS.register("layered-pursuit")
@dataclass(frozen=True, kw_only=True)
class LayeredPursuit(PursuitConfig):
    """Each layer's codes solve its own problem, given the codes of the layer below, which stay.

    T proximal steps for each layer from ``relu(s_j + D_j^T z_{j-1} - b_j)``, of the size 1/L_j for
    the squared norm L_j of its dictionary.  With skip connections the codes that one leads from
    are given, too; the paper says that this pursuit has none.
    """

    def body(
        self, layers: Sequence[TiedLayer], skips: Sequence[int | None]
    ) -> "LayeredPursuitBody":
        return LayeredPursuitBody(
            layers,
            skips,
            iterations=self.iterations,
            accelerated=self.accelerated,
            power_iterations=self.power_iterations,
        )


class LayeredPursuitBody(PursuitBody):
    """Minimises the part of the objective that belongs to a layer, layer by layer."""

    def solve(self, x: Tensor) -> Codes:
        codes: Codes = ()
        for j, layer in enumerate(self.layers):
            below = codes[j - 1] if j else x
            first = self.first_codes(j, below, codes)
            skip = self.skips[j]
            given = None if skip is None else codes[skip]
            codes = *codes, self._solved(layer, below, first, given)
        return codes

    def _solved(
        self, layer: TiedLayer, below: Tensor, first: Tensor, given: Tensor | None
    ) -> Tensor:
        """Return the codes of one layer, where those of a skip are given, or None."""
        if not self.iterations:
            return first
        norm = squared_norm(
            lambda z: (layer.analysis(layer.synthesis(z[0])),),
            (layer.start,),
            self.power_iterations,
        )

        def step(ahead: Codes) -> Codes:
            own = ahead[0] if given is None else ahead[0] - given
            slope = layer.analysis(below - layer.synthesis(own))
            return (F.relu(ahead[0] + (slope - layer.threshold) / norm),)

        return self.iterated((first,), step)[0]
