"""Interval bound propagation (Gowal et al., 2018), https://arxiv.org/abs/1810.12715.

As the authors verify their own networks, https://github.com/google-deepmind/interval-bound-propagation.
"""

from dataclasses import dataclass

from torch import Tensor

from robustbench_cli.bounds import FLOAT32, BoundGraph, InputBall, ibp_margins
from robustbench_cli.certificates import CERTIFICATES
from robustbench_cli.certificates._bounding import GraphCertificate


@CERTIFICATES.register("ibp")
@dataclass(frozen=True, kw_only=True)
class IntervalBounds(GraphCertificate):
    """Intervals of every layer's values, and the last linear layer folded into the margins.

    Cheap, and tight for networks that were trained by it; of others it proves next to nothing.
    """

    def lower(self, graph: BoundGraph, ball: InputBall, y: Tensor, classes: int) -> Tensor:
        return ibp_margins(graph, ball, y, classes, FLOAT32)
