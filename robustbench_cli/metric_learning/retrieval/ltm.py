"""LTM: learning to misrank (Wang, Wang, Liang, Cai and Lin, 2020).

https://arxiv.org/abs/2004.04199
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_cli.metric_learning._recall import EmbeddingGallery
from robustbench_cli.metric_learning.retrieval import (
    RETRIEVAL_ATTACKS,
    Queries,
    RetrievalAttack,
    Scale,
    found_first,
)


@RETRIEVAL_ATTACKS.register("ltm")
@dataclass(frozen=True, kw_only=True)
class LearningToMisrank(RetrievalAttack):
    """The farthest image of another class is drawn near, the nearest of the own class pushed away.

    LTM is the Recall@1 that is left.  The released code of robrank takes the query's own image for
    the nearest of its class; here it does not count.
    """

    scales: ClassVar[Mapping[str, Scale]] = {"LTM": Scale(better="higher", lost_by_collapse=False)}

    def aims(self, queries: Queries) -> Tensor:
        return torch.stack([queries.same(), queries.other()], 1)

    def gain(self, z: Tensor, aims: Tensor, gallery: EmbeddingGallery) -> Tensor:
        found = torch.cdist(z, gallery.z)
        nearest = found.masked_fill(~aims[:, 0], torch.inf).min(1).values
        farthest = found.masked_fill(~aims[:, 1], -torch.inf).max(1).values
        return -(farthest - nearest).clamp(min=0)

    def scores(self, z: Tensor, aims: Tensor, queries: Queries) -> Mapping[str, Tensor]:
        return {"LTM": found_first(z, queries)}
