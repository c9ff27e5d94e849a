"""A query is pushed from its class (Panum, Wang, Kan, Fernandes and Jha, 2021).

https://arxiv.org/abs/2102.07265
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_cli.core.gradient_ascent import Start, StepSize
from robustbench_cli.metric_learning._perturbed import distances
from robustbench_cli.metric_learning._recall import EmbeddingGallery
from robustbench_cli.metric_learning.retrieval import RETRIEVAL_ATTACKS, Queries, RetrievalAttack


@RETRIEVAL_ATTACKS.register("untargeted")
@dataclass(frozen=True, kw_only=True)
class QueryPush(RetrievalAttack):
    """The query's distance to the nearest image of its class grows; wrong queries stay as they are.

    That image is the one which is nearest to the clean query.
    """

    step: StepSize = 0.1
    """Step size as a fraction of eps."""
    start: Start = "uniform"
    """Where it starts: at a random image in the ball, or at the clean one."""

    spares_wrong: ClassVar[bool] = True

    def aims(self, queries: Queries) -> Tensor:
        nearest = queries.distances.masked_fill(~queries.same(), torch.inf).argmin(1)
        return queries.gallery.z[nearest]

    def gain(self, z: Tensor, aims: Tensor, gallery: EmbeddingGallery) -> Tensor:
        return distances(z, aims)
