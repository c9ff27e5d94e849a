"""ES: embedding shift (Zhou, Niu, Wang, Zhang and Hua, 2020).

https://arxiv.org/abs/2002.11293
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from robustbench_cli.core.gradient_ascent import Ascent
from robustbench_cli.metric_learning._perturbed import distances, shifted
from robustbench_cli.metric_learning._recall import EmbeddingGallery
from robustbench_cli.metric_learning.retrieval import (
    RETRIEVAL_ATTACKS,
    Queries,
    RetrievalAttack,
    Scale,
    found_first,
)


@RETRIEVAL_ATTACKS.register("es")
@dataclass(frozen=True, kw_only=True)
class EmbeddingShift(RetrievalAttack):
    """The query's embedding is moved as far from its own clean one as can be.

    ES:D is the distance that it moves, ES:R the Recall@1 that is left.
    """

    scales: ClassVar[Mapping[str, Scale]] = {
        "ES:D": Scale(better="lower", unit=""),
        "ES:R": Scale(better="higher", lost_by_collapse=False),
    }

    def aims(self, queries: Queries) -> Tensor:
        return queries.z

    def gain(self, z: Tensor, aims: Tensor, gallery: EmbeddingGallery) -> Tensor:
        return distances(z, aims)

    def attacked(self, queries: Queries, aims: Tensor) -> Tensor:
        climb = Ascent(steps=self.steps, step=self.step, start=self.start)
        x, threat, noise = queries.x, queries.threat, queries.noise
        return shifted(queries.model, aims, x, threat, noise, climb)

    def scores(self, z: Tensor, aims: Tensor, queries: Queries) -> Mapping[str, Tensor]:
        return {"ES:D": distances(z, aims), "ES:R": found_first(z, queries)}
