"""GTM: greedy top-1 misranking (Zhou, Wang, Niu, Zhang, Zheng and Hua, 2024).

https://arxiv.org/abs/2106.03614
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_cli.metric_learning._perturbed import distances
from robustbench_cli.metric_learning._recall import EmbeddingGallery
from robustbench_cli.metric_learning.retrieval import (
    RETRIEVAL_ATTACKS,
    Queries,
    RetrievalAttack,
    Scale,
    found_first,
)


@RETRIEVAL_ATTACKS.register("gtm")
@dataclass(frozen=True, kw_only=True)
class GreedyMisranking(RetrievalAttack):
    """The query is moved towards the nearest image of another class.

    GTM is the Recall@1 that is left.  The released code of robrank counts that image's place among
    the images of other classes only, and so aims at another one; here it is the nearest.
    """

    scales: ClassVar[Mapping[str, Scale]] = {"GTM": Scale(better="higher", lost_by_collapse=False)}

    def aims(self, queries: Queries) -> Tensor:
        nearest = queries.distances.masked_fill(~queries.other(), torch.inf).argmin(1)
        return queries.gallery.z[nearest]

    def gain(self, z: Tensor, aims: Tensor, gallery: EmbeddingGallery) -> Tensor:
        return -distances(z, aims)

    def scores(self, z: Tensor, aims: Tensor, queries: Queries) -> Mapping[str, Tensor]:
        return {"GTM": found_first(z, queries)}
