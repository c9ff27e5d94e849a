"""CA+: a candidate is raised (Zhou, Niu, Wang, Zhang and Hua, 2020).

https://arxiv.org/abs/2002.11293
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
from robustbench_cli.metric_learning.retrieval._ranks import (
    candidate_margins,
    random_places,
    ranked_at,
)


@RETRIEVAL_ATTACKS.register("ca+")
@dataclass(frozen=True, kw_only=True)
class CandidateRaise(RetrievalAttack):
    """The changed image is a candidate, which is to come first for a random query.

    Its rank is 50 % on average if that fails.
    """

    scales: ClassVar[Mapping[str, Scale]] = {"CA+": Scale(better="higher")}
    as_query: ClassVar[bool] = False

    def aims(self, queries: Queries) -> Tensor:
        return random_places(queries)

    def gain(self, z: Tensor, aims: Tensor, gallery: EmbeddingGallery) -> Tensor:
        margins = candidate_margins(z, aims, gallery)
        return -margins.clamp(min=0).mean(1)

    def scores(self, z: Tensor, aims: Tensor, queries: Queries) -> Mapping[str, Tensor]:
        margins = candidate_margins(z, aims, queries.gallery)
        return {"CA+": ranked_at(margins, queries.own, aims)}
