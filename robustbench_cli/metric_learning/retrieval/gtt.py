"""GTT: greedy top-1 translocation (Zhou, Wang, Niu, Zhang, Zheng and Hua, 2024).

https://arxiv.org/abs/2106.03614
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from robustbench_cli.metric_learning._recall import EmbeddingGallery
from robustbench_cli.metric_learning.retrieval import (
    RETRIEVAL_ATTACKS,
    Queries,
    RetrievalAttack,
    Scale,
)
from robustbench_cli.metric_learning.retrieval._ranks import query_margins

_KEPT = 4
"""The image counts as kept while it is among so many of the nearest."""


@RETRIEVAL_ATTACKS.register("gtt")
@dataclass(frozen=True, kw_only=True)
class GreedyTranslocation(RetrievalAttack):
    """The image that the clean query finds first is to leave the first four.

    GTT is the share of queries that still find it among them.
    """

    scales: ClassVar[Mapping[str, Scale]] = {"GTT": Scale(better="higher")}

    def aims(self, queries: Queries) -> Tensor:
        return queries.distances.argmin(1)

    def gain(self, z: Tensor, aims: Tensor, gallery: EmbeddingGallery) -> Tensor:
        return query_margins(z, aims, gallery).clamp(max=0).mean(1)

    def scores(self, z: Tensor, aims: Tensor, queries: Queries) -> Mapping[str, Tensor]:
        nearer = query_margins(z, aims, queries.gallery) > 0
        others = nearer.scatter(1, queries.own[:, None], False).sum(1)
        return {"GTT": (others < _KEPT).float()}
