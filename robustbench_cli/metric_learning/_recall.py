"""Recall@k, mAP@R and the collapse of embeddings (Musgrave, Belongie and Lim, 2020).

https://arxiv.org/abs/2003.08505
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustbench_cli.core.model_modes import evaluating, full_float32
from robustbench_cli.data import Split

EMBEDDED_AT_ONCE = 256
"""Images in a forward pass, and queries that are compared with the gallery at a time."""
COLLAPSED = 0.05
"""Mean distance of a gallery's embeddings, for norm 1, below which they have collapsed."""
_PAIRED = 2000
"""Embeddings between which that mean is taken, the first of a gallery: four million pairs."""


@dataclass(frozen=True)
class EmbeddingGallery:
    """Embedded images among which queries look for their class."""

    z: Tensor
    """Embeddings (N, D)."""
    y: Tensor
    """Labels (N)."""

    def distances(self, z: Tensor, own: Tensor | None = None) -> Tensor:
        """Return the Euclidean distances (B, N) of queries; infinite to a query's own place.

        Args:
            z: embeddings (B, D) of the queries.
            own: the places (B) of the queries' own images in the gallery; None: they are not there.
        """
        # Without the matrix product, whose rounding can put a near image before a nearer one.
        found = torch.cdist(z, self.z, compute_mode="donot_use_mm_for_euclid_dist")
        return found if own is None else found.scatter(1, own[:, None], torch.inf)

    @property
    def spread(self) -> float:
        """The mean distance of two embeddings, in units of their mean norm.

        Only the first 2,000 are compared.
        """
        z = self.z[:_PAIRED].double()
        scale = torch.linalg.vector_norm(z, dim=1).mean().clamp(min=1e-12)
        return float(torch.pdist(z).mean() / scale) if len(z) > 1 else 0.0


def embedded(model: nn.Module, x: Tensor) -> Tensor:
    """Return the embeddings (B, D) of images (B, C, H, W), in evaluation mode and full float32."""
    with evaluating(model), full_float32(model), torch.no_grad():
        return torch.cat([model(part) for part in torch.split(x, EMBEDDED_AT_ONCE)])


def embed_split(model: nn.Module, split: Split) -> EmbeddingGallery:
    """Return the images of a split as a gallery, with its labels."""
    rows = torch.arange(len(split), device=split.y.device)
    split.expect(rows)
    parts = [embedded(model, split.images(part)) for part in torch.split(rows, EMBEDDED_AT_ONCE)]
    return EmbeddingGallery(torch.cat(parts), split.y)


@dataclass(frozen=True)
class Ranked:
    """The galleries' labels in the order of each query's distances."""

    same: Tensor
    """Whether the k-th nearest image has the query's label, bool (B, K), nearest first; K is the
    number of images in the gallery, the query's own left out."""
    relevant: Tensor
    """Number (B) of images in the gallery that have the query's label, its own left out."""

    @classmethod
    def of(cls, gallery: EmbeddingGallery, z: Tensor, y: Tensor, own: Tensor | None) -> "Ranked":
        """Rank a gallery for queries.

        Args:
            z: embeddings (B, D) of the queries.
            y: their labels (B).
            own: their places in the gallery, which do not count; None: they are not in it.
        """
        left_out = 0 if own is None else 1
        relevant = (gallery.y[None] == y[:, None]).sum(1) - left_out
        count = len(gallery.y) - left_out
        # Sorted whole and stably: equal distances come in the order of the gallery.
        nearest = gallery.distances(z, own).sort(dim=1, stable=True).indices[:, :count]
        return cls(gallery.y[nearest] == y[:, None], relevant)

    def recall(self, k: int) -> Tensor:
        """Return whether one of the k nearest images has the query's label (B, bool)."""
        return self.same[:, :k].any(1)

    def average_precision(self, depth: int | None = None) -> Tensor:
        """Return the average precision (B) of the R nearest images, by query: mAP@R is its mean.

        R is how many images have the query's label, or ``depth`` for all queries.  The precision
        at a place counts where the image there is relevant; 0 for a query that has none.
        """
        r = self.relevant if depth is None else torch.full_like(self.relevant, depth)
        return self._precisions(r).sum(1) / r.clamp(min=1)

    def whole_average_precision(self) -> Tensor:
        """Return the average precision (B) of the whole list, by query: mAP is its mean."""
        every = torch.full_like(self.relevant, self.same.shape[1])
        return self._precisions(every).sum(1) / self.relevant.clamp(min=1)

    def _precisions(self, r: Tensor) -> Tensor:
        """Return the precision at each of the first ``r`` (B) places that is relevant (B, K)."""
        places = torch.arange(1, self.same.shape[1] + 1, device=self.same.device)
        return (self.same.cumsum(1) / places) * (self.same & (places <= r[:, None]))


def recall_at_1(gallery: EmbeddingGallery) -> float:
    """Return the share of a gallery's images whose nearest other image is of their class."""
    rows = torch.arange(len(gallery.y), device=gallery.y.device)
    found = [
        Ranked.of(gallery, gallery.z[part], gallery.y[part], part).recall(1)
        for part in torch.split(rows, EMBEDDED_AT_ONCE)
    ]
    return float(torch.cat(found).float().mean())
