"""CROWN-IBP (Zhang et al., 2019), https://arxiv.org/abs/1906.06316.

Linear bounds of the margins, between intervals of every layer's values.
"""

from dataclasses import dataclass

from torch import Tensor

from robustbench_cli.bounds import FLOAT32, BoundGraph, InputBall, crown_ibp_margins, ibp_margins
from robustbench_cli.certificates import CERTIFICATES
from robustbench_cli.certificates._bounding import GraphCertificate


@CERTIFICATES.register("crown-ibp")
@dataclass(frozen=True, kw_only=True)
class LinearBoundsOverIntervals(GraphCertificate):
    """One pass of linear bounds back from the margins, over the intervals of IBP.

    The paper trains with it.  The larger of its bound and IBP's counts, so it proves no less.
    """

    def lower(self, graph: BoundGraph, ball: InputBall, y: Tensor, classes: int) -> Tensor:
        return crown_ibp_margins(graph, ball, y, classes, FLOAT32).fmax(
            ibp_margins(graph, ball, y, classes, FLOAT32)
        )
