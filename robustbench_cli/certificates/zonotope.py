"""Hybrid zonotopes (Mirman et al., 2018), https://proceedings.mlr.press/v80/mirman18b.html.

The domain in which DiffAI trains and certifies, https://github.com/eth-sri/diffai.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from robustbench_cli.bounds import (
    FLOAT32,
    RELU_TRANSFORMERS,
    BoundGraph,
    InputBall,
    zonotope_margins,
)
from robustbench_cli.certificates import CERTIFICATES, ProofSubject
from robustbench_cli.certificates._bounding import GraphCertificate, MarginBounds
from robustbench_cli.core.errors import UserError


@CERTIFICATES.register("zonotope")
@dataclass(frozen=True, kw_only=True)
class HybridZonotopes(GraphCertificate):
    """An error term for each pixel, and an independent error for each value of a layer.

    Between intervals and linear bounds; its memory grows with the number of pixels times that of
    the largest layer's values.
    """

    relu: Literal["box", "diag", "switch", "smooth"] = "switch"
    """The transformer of ReLU: zBox, zDiag, zSwitch or zSmooth of the paper."""

    def bounds(self, subject: ProofSubject) -> MarginBounds:
        norm = subject.threat.norm
        if norm != "Linf":
            raise UserError(f"certificate 'zonotope' is for Linf balls, got {norm}: use crown-ibp")
        return super().bounds(subject)

    def functions(self, subject: ProofSubject) -> int:
        return int(subject.data.images(slice(1)).numel())

    def lower(self, graph: BoundGraph, ball: InputBall, y: Tensor, classes: int) -> Tensor:
        kink = RELU_TRANSFORMERS[self.relu]
        return zonotope_margins(graph, ball, y, classes, FLOAT32, kink=kink)
