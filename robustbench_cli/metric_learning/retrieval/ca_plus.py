"""CA+: a candidate is raised (Zhou, Niu, Wang, Zhang and Hua, 2020).

https://arxiv.org/abs/2002.11293
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from robustbench_cli.metric_learning.retrieval import RETRIEVAL_ATTACKS, Scale
from robustbench_cli.metric_learning.retrieval._ranks import CandidateRank


@RETRIEVAL_ATTACKS.register("ca+")
@dataclass(frozen=True, kw_only=True)
class CandidateRaise(CandidateRank):
    """The changed image is a candidate, which is to come first for a random query.

    Its rank is 50 % on average if that fails.
    """

    scales: ClassVar[Mapping[str, Scale]] = {"CA+": Scale(better="higher")}
    raises: ClassVar[bool] = True
