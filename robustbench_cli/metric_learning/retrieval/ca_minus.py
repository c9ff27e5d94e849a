"""CA-: a candidate is lowered (Zhou, Niu, Wang, Zhang and Hua, 2020).

https://arxiv.org/abs/2002.11293
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from robustbench_cli.metric_learning.retrieval import RETRIEVAL_ATTACKS, Scale
from robustbench_cli.metric_learning.retrieval._ranks import CandidateRank


@RETRIEVAL_ATTACKS.register("ca-")
@dataclass(frozen=True, kw_only=True)
class CandidateSink(CandidateRank):
    """The changed image is a candidate, which is to come last for a query near it.

    The query is drawn from the nearest 1 % of the gallery.
    """

    scales: ClassVar[Mapping[str, Scale]] = {"CA-": Scale(better="lower")}
    raises: ClassVar[bool] = False
