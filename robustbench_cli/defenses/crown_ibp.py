"""CROWN-IBP training (Zhang et al., 2019), https://arxiv.org/abs/1906.06316.

min over the weights of  kappa CE(f(x), y) + (1 - kappa) CE(-m, y),
m = beta m_CROWN-IBP + (1 - beta) m_IBP,  lower bounds of the margins z_y - z_j
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from robustbench_cli.bounds import BoundGraph, InputBall, crown_ibp_margins, ibp_margins
from robustbench_cli.core.registry import Number
from robustbench_cli.defenses import DEFENSES
from robustbench_cli.defenses._certified import CertifiedTraining
from robustbench_cli.optim import Fraction


@DEFENSES.register("crown-ibp")
@dataclass(frozen=True, kw_only=True)
class LinearBoundTraining(CertifiedTraining):
    """As ``ibp``, but at first with linear bounds of the margins; certify it with ``ibp``.

    The bound that counts goes from CROWN-IBP's (beta 1) to IBP's (beta 0) as the radius grows:
    beta is what the radius lacks, as a share of it.  Defaults are those of a configuration for
    CIFAR-10 at 8/255: of 3,200 epochs 320 without bounds, then a smooth ramp of 1,601, and a radius
    of 8.8/255 with a final kappa of a half.  At 2/255 the authors' configuration keeps CROWN-IBP's
    bound to the end: ``beta=1``.
    """

    warmup: Fraction = 320 / 3200
    ramp: Fraction = 1601 / 3200
    curve: Literal["linear", "smooth"] = "smooth"
    stretch: Annotated[Number, Field(gt=0)] = 1.1
    beta: Fraction = 0.0
    """The share of CROWN-IBP's bound once the ramp is over; it falls from 1 as the radius grows."""

    def margins(
        self, graph: BoundGraph, ball: InputBall, y: Tensor, classes: int, grown: float
    ) -> Tensor:
        beta = 1 - (1 - self.beta) * grown
        intervals = ibp_margins(graph, ball, y, classes)
        if not beta:
            return intervals
        return beta * crown_ibp_margins(graph, ball, y, classes) + (1 - beta) * intervals
