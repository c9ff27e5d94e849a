"""CROWN (Zhang et al., 2018), https://arxiv.org/abs/1811.00866.

Linear bounds of the margins, and of every activation's input on the way to them.
"""

from dataclasses import dataclass

from torch import Tensor

from robustbench_cli.bounds import FLOAT32, BoundGraph, InputBall, crown_margins
from robustbench_cli.certificates import CERTIFICATES
from robustbench_cli.certificates._bounding import GraphCertificate


@CERTIFICATES.register("crown")
@dataclass(frozen=True, kw_only=True)
class LinearBounds(GraphCertificate):
    """Linear bounds of each activation's input where its sign is open, then of the margins.

    Its ReLU has the adaptive lower slope of the paper.  The tightest of the three, and the only one
    that proves much of networks trained in other ways; its cost grows with the number of units
    times that of a forward pass, so it is for small networks.
    """

    def lower(self, graph: BoundGraph, ball: InputBall, y: Tensor, classes: int) -> Tensor:
        return crown_margins(graph, ball, y, classes, FLOAT32)
