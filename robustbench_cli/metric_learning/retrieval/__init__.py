"""Attacks on retrieval: an image is changed so that it finds, or is found by, the wrong ones.

An attack is a frozen dataclass with ``aims`` (what is chosen of the gallery before it starts) and
``gain`` (what it climbs).  Unless an attack says otherwise the changed image is the query, the
gallery is clean, and a query's own image in it does not count.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.gradient_ascent import Ascent, Start, Steps, StepSize, check_reach
from robustbench_cli.core.registry import Registry
from robustbench_cli.core.threat import Threat
from robustbench_cli.metric_learning._perturbed import moved
from robustbench_cli.metric_learning._recall import EmbeddingGallery, Ranked


@dataclass(frozen=True, kw_only=True)
class Queries:
    """A batch of images of a gallery, which are to be changed."""

    model: nn.Module
    """Images (B, C, H, W) in [0, 1] to embeddings (B, D)."""
    gallery: EmbeddingGallery
    """Clean embeddings, the images' own among them."""
    x: Tensor
    """Clean images (B, C, H, W) in [0, 1]."""
    y: Tensor
    """Labels (B)."""
    own: Tensor
    """Places (B) of the images in the gallery."""
    threat: Threat
    noise: Noise
    """Keyed by example, B of them."""

    @property
    def z(self) -> Tensor:
        """Clean embeddings (B, D)."""
        return self.gallery.z[self.own]

    @property
    def distances(self) -> Tensor:
        """Distances (B, N) of the clean images to the gallery; infinite to their own places."""
        return self.gallery.distances(self.z, self.own)

    def same(self) -> Tensor:
        """Return which images of the gallery have a query's label, not its own (B, N) bool."""
        return (self.gallery.y[None] == self.y[:, None]).scatter(1, self.own[:, None], False)

    def other(self) -> Tensor:
        """Return which images of the gallery have another label than a query (B, N) bool."""
        return self.gallery.y[None] != self.y[:, None]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What a measure of an attack means."""

    better: Literal["higher", "lower"]
    """Which direction is better for the model."""
    unit: Literal["", "%"] = "%"
    lost_by_collapse: bool = True
    """True if collapsed embeddings look robust by it, so that it then means nothing."""


@dataclass(frozen=True, kw_only=True)
class RetrievalAttack(ABC):
    """Projected gradient ascent on what the embedding of an image is to do."""

    steps: Steps = 32
    """Steps of the attack."""
    step: StepSize = 3 / 77
    """Step size as a fraction of eps; 3/255 at eps 77/255 is 3/77."""
    start: Start = "clean"
    """Where it starts: at the clean image, or at a random one in the ball."""

    scales: ClassVar[Mapping[str, Scale]] = {}
    """Measures of its own, beside Recall@k and mAP@R, by name."""
    as_query: ClassVar[bool] = True
    """False if the changed image is one that is found, so that it has no Recall@k."""
    spares_wrong: ClassVar[bool] = False
    """True if images whose nearest neighbour is of another class stay as they are."""

    def __post_init__(self) -> None:
        check_reach(self.steps, self.step)

    @abstractmethod
    def aims(self, queries: Queries) -> Tensor:
        """Return what is chosen before the attack starts, a row for each image (B, ...)."""

    @abstractmethod
    def gain(self, z: Tensor, aims: Tensor, gallery: EmbeddingGallery) -> Tensor:
        """Return what the attack climbs (B), for embeddings ``z`` (B, D) of the changed images."""

    def scores(self, z: Tensor, aims: Tensor, queries: Queries) -> Mapping[str, Tensor]:
        """Return the measures in ``scales``, a number for each changed image (B), by name."""
        return {}

    def attacked(self, queries: Queries, aims: Tensor) -> Tensor:
        """Return changed images (B, C, H, W) in the ball and in [0, 1], detached."""
        return moved(
            queries.model,
            lambda z, chosen: self.gain(z, chosen, queries.gallery),
            aims,
            queries.x,
            queries.threat,
            queries.noise,
            Ascent(steps=self.steps, step=self.step, start=self.start),
        )


def found_first(z: Tensor, queries: Queries) -> Tensor:
    """Return whether the nearest image of the gallery has the query's label (B, float).

    The query's own place in the gallery does not count.
    """
    ranked = Ranked.of(queries.gallery, z, queries.y, queries.own)
    return ranked.recall(1).float()


RETRIEVAL_ATTACKS: Registry[RetrievalAttack] = Registry("retrieval-attack", __name__)
