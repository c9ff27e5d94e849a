"""QA-: a query lowers a candidate (Zhou, Niu, Wang, Zhang and Hua, 2020).

https://arxiv.org/abs/2002.11293
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from robustbench_cli.metric_learning.retrieval import RETRIEVAL_ATTACKS, Scale
from robustbench_cli.metric_learning.retrieval._ranks import QueryRank


@RETRIEVAL_ATTACKS.register("qa-")
@dataclass(frozen=True, kw_only=True)
class QuerySink(QueryRank):
    """The changed image is the query, for which a candidate near it is to come last.

    The candidate is drawn from the nearest 1 % of the gallery.
    """

    scales: ClassVar[Mapping[str, Scale]] = {"QA-": Scale(better="lower")}
    raises: ClassVar[bool] = False
