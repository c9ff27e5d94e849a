"""Attacks on ranks (Zhou, Niu, Wang, Zhang and Hua, 2020), https://arxiv.org/abs/2002.11293.

What candidate and query attacks have in common: chosen images of the gallery, hinges over the
gallery, and ranks in per cent.  The image's own place and the chosen image count in no rank.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_cli.metric_learning._perturbed import distances
from robustbench_cli.metric_learning._recall import EmbeddingGallery
from robustbench_cli.metric_learning.retrieval import Queries, RetrievalAttack

_TOP = 0.01
"""The share of the gallery, the nearest, that attacks downwards choose from."""


def random_places(queries: Queries) -> Tensor:
    """Return a random place in the gallery for each image (B), not its own."""
    count = len(queries.gallery.y) - 1
    draw = queries.noise.fork("chosen").uniform(queries.z.new_empty(len(queries.y), 1))[:, 0]
    place = (draw * count).long().clamp(max=count - 1)
    return place + (place >= queries.own)


def near_places(queries: Queries) -> Tensor:
    """Return a random place among the nearest 1 % of the gallery for each image (B)."""
    top = max(1, int(_TOP * len(queries.gallery.y)))
    nearest = queries.distances.sort(dim=1, stable=True).indices[:, :top]
    draw = queries.noise.fork("chosen").uniform(queries.z.new_empty(len(queries.y), 1))
    return nearest.gather(1, (draw * top).long().clamp(max=top - 1))[:, 0]


def query_margins(z: Tensor, chosen: Tensor, gallery: EmbeddingGallery) -> Tensor:
    """Return by how much the chosen image is farther from a query than each other one (B, N).

    Args:
        z: embeddings (B, D) of the changed queries.
        chosen: places (B) in the gallery.
    """
    found = torch.cdist(z, gallery.z)
    return found.gather(1, chosen[:, None]) - found


def candidate_margins(z: Tensor, chosen: Tensor, gallery: EmbeddingGallery) -> Tensor:
    """Return by how much a candidate is farther from the chosen query than each image (B, N).

    Args:
        z: embeddings (B, D) of the changed candidates.
        chosen: places (B) of the queries in the gallery.
    """
    queries = gallery.z[chosen]
    return distances(z, queries)[:, None] - torch.cdist(queries, gallery.z)


def ranked_at(margins: Tensor, own: Tensor, chosen: Tensor) -> Tensor:
    """Return the share of the gallery that comes before the image in question (B).

    Args:
        margins: by how much that one is farther than each image of the gallery (B, N).
        own, chosen: places (B) that do not count.
    """
    nearer = (margins > 0).scatter(1, torch.stack([own, chosen], 1), False)
    return nearer.sum(1) / (margins.shape[1] - 2)


@dataclass(frozen=True, kw_only=True)
class RankAttack(RetrievalAttack):
    """An attack on the rank of a chosen image, which is the one measure in ``scales``."""

    raises: ClassVar[bool]
    """True if the rank is to be the first, of an image chosen at random; False: the last, of one
    that is near."""

    @abstractmethod
    def margins(self, z: Tensor, chosen: Tensor, gallery: EmbeddingGallery) -> Tensor:
        """Return by how much the image in question is farther than each of the gallery (B, N)."""

    def aims(self, queries: Queries) -> Tensor:
        return random_places(queries) if self.raises else near_places(queries)

    def gain(self, z: Tensor, aims: Tensor, gallery: EmbeddingGallery) -> Tensor:
        margins = self.margins(z, aims, gallery)
        return -margins.clamp(min=0).mean(1) if self.raises else margins.clamp(max=0).mean(1)

    def scores(self, z: Tensor, aims: Tensor, queries: Queries) -> Mapping[str, Tensor]:
        (name,) = self.scales
        return {name: ranked_at(self.margins(z, aims, queries.gallery), queries.own, aims)}


class CandidateRank(RankAttack):
    """The changed image is a candidate, which is found."""

    as_query: ClassVar[bool] = False

    def margins(self, z: Tensor, chosen: Tensor, gallery: EmbeddingGallery) -> Tensor:
        return candidate_margins(z, chosen, gallery)


class QueryRank(RankAttack):
    """The changed image is the query, which finds."""

    def margins(self, z: Tensor, chosen: Tensor, gallery: EmbeddingGallery) -> Tensor:
        return query_margins(z, chosen, gallery)
