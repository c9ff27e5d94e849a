"""QA+: a query raises a candidate (Zhou, Niu, Wang, Zhang and Hua, 2020).

https://arxiv.org/abs/2002.11293
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from robustbench_cli.metric_learning.retrieval import RETRIEVAL_ATTACKS, Scale
from robustbench_cli.metric_learning.retrieval._ranks import QueryRank


@RETRIEVAL_ATTACKS.register("qa+")
@dataclass(frozen=True, kw_only=True)
class QueryRaise(QueryRank):
    """The changed image is the query, for which a random candidate is to come first.

    The candidate's rank is 50 % on average if that fails.
    """

    scales: ClassVar[Mapping[str, Scale]] = {"QA+": Scale(better="higher")}
    raises: ClassVar[bool] = True
