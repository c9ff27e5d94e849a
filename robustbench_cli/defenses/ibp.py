"""IBP training (Gowal et al., 2018), https://arxiv.org/abs/1810.12715.

min over the weights of  kappa CE(f(x), y) + (1 - kappa) CE(z, y),  z the worst case of all logits
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from robustbench_cli.bounds import BoundGraph, InputBall, ibp_margins
from robustbench_cli.core.registry import Number
from robustbench_cli.defenses import DEFENSES
from robustbench_cli.defenses._certified import CertifiedTraining
from robustbench_cli.optim import Fraction


@DEFENSES.register("ibp")
@dataclass(frozen=True, kw_only=True)
class IntervalTraining(CertifiedTraining):
    """The clean criterion, and that on margins bounded by intervals; certify it with ``ibp``.

    The last linear layer is folded into the margins.  Defaults are those of the authors' example
    for MNIST: of 60,000 steps 2,000 without the second term, then 10,000 in which the radius grows
    linearly and kappa falls from 1 to 1/2, and a radius of 1.1 times the one that is certified.
    """

    warmup: Fraction = 2_000 / 60_000
    ramp: Fraction = 10_000 / 60_000
    stretch: Annotated[Number, Field(gt=0)] = 1.1

    def margins(
        self, graph: BoundGraph, ball: InputBall, y: Tensor, classes: int, grown: float
    ) -> Tensor:
        return ibp_margins(graph, ball, y, classes)
