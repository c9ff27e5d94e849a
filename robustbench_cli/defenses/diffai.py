"""DiffAI (Mirman et al., 2018), https://proceedings.mlr.press/v80/mirman18b.html.

min over the weights of  kappa CE(f(x), y) + (1 - kappa) CE(-m, y),
m the lower bounds of the margins z_y - z_j in an abstract domain
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from robustbench_cli.bounds import (
    RELU_TRANSFORMERS,
    BoundGraph,
    InputBall,
    ibp_margins,
    zonotope_margins,
)
from robustbench_cli.defenses import DEFENSES
from robustbench_cli.defenses._certified import CertifiedTraining
from robustbench_cli.optim import Fraction


@DEFENSES.register("diffai")
@dataclass(frozen=True, kw_only=True)
class AbstractTraining(CertifiedTraining):
    """The clean criterion, and that on margins bounded by boxes or hybrid zonotopes.

    Both terms count from the beginning, at the full radius.  That they weigh 10 to 1 is recalled
    from the paper, not checked; they are divided by the sum.  The abstract term is the criterion on
    the worst margins, as of the other certified defenses.  Certify with ``zonotope`` or, after
    ``domain=box``, with ``ibp``.  A zonotope has an error term for each pixel: of the digits 64, of
    MNIST 784, and each is a copy of every layer.  In another norm than Linf it takes the box around
    the ball.
    """

    kappa: Fraction = 10 / 11
    domain: Literal["box", "zonotope"] = "box"
    """The abstract domain: intervals of all values, or hybrid zonotopes."""
    relu: Literal["box", "diag", "switch", "smooth"] = "switch"
    """The transformer of ReLU on zonotopes: zBox, zDiag, zSwitch or zSmooth of the paper."""

    def margins(
        self, graph: BoundGraph, ball: InputBall, y: Tensor, classes: int, grown: float
    ) -> Tensor:
        if self.domain == "box":
            return ibp_margins(graph, ball, y, classes)
        kink = RELU_TRANSFORMERS[self.relu]
        return zonotope_margins(graph, ball, y, classes, kink=kink)
