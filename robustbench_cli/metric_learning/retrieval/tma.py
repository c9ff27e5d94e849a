"""TMA: targeted mismatch attack on a global descriptor (Tolias, Radenovic and Chum, 2019).

https://arxiv.org/abs/1908.09163
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from robustbench_cli.metric_learning._recall import EmbeddingGallery
from robustbench_cli.metric_learning.retrieval import (
    RETRIEVAL_ATTACKS,
    Queries,
    RetrievalAttack,
    Scale,
)
from robustbench_cli.metric_learning.retrieval._ranks import random_places


@RETRIEVAL_ATTACKS.register("tma")
@dataclass(frozen=True, kw_only=True)
class TargetedMismatch(RetrievalAttack):
    """The query's embedding is turned towards that of a random image: their cosine grows."""

    scales: ClassVar[Mapping[str, Scale]] = {"TMA": Scale(better="lower", unit="")}

    def aims(self, queries: Queries) -> Tensor:
        return queries.gallery.z[random_places(queries)]

    def gain(self, z: Tensor, aims: Tensor, gallery: EmbeddingGallery) -> Tensor:
        return F.cosine_similarity(z, aims)

    def scores(self, z: Tensor, aims: Tensor, queries: Queries) -> Mapping[str, Tensor]:
        return {"TMA": F.cosine_similarity(z, aims)}
