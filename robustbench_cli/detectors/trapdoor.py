"""Signatures of trapdoors (Shan et al., 2020), https://arxiv.org/abs/1904.08554, section 4.2."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import stream_generator
from robustbench_cli.core.examples import Examples
from robustbench_cli.core.registry import Number, Seed
from robustbench_cli.core.trapdoors import Trapdoors
from robustbench_cli.detectors import DETECTORS, Detector, ModelOutputs


@DETECTORS.register("trapdoor", aliases=("honeypot",))
@dataclass(frozen=True, kw_only=True)
class TrapdoorDetector(Detector):
    """Flag features that point where the trapdoor of the predicted class leads.

    The score is the cosine similarity of the features of the last layer to the signature of the
    predicted class: the mean features of training images of other classes that carry its trapdoor.
    It takes a run that was trained with ``honeypot``.

    One threshold counts for all classes; the paper sets one per class.  The official code compares
    images under attack towards one class with clean images of the other classes, whose features are
    far from that class; here a prediction is compared with clean images of the same prediction, as
    a deployed model must.
    """

    neurons: Annotated[Number, Field(gt=0, le=1)] = 1.0
    """The share of the features that is compared, drawn once at fitting: the code's
    ``filter-ratio``, against attacks that know the signature.  As there, the signature keeps all
    of its entries in its norm."""
    seed: Seed = 0
    """Of the draw of features."""

    reads_kept: ClassVar[bool] = True

    def training_data(self, data: Examples, kept: Mapping[str, Tensor]) -> Examples:
        trapdoors = Trapdoors.kept_in(kept)
        if trapdoors is None:
            raise UserError(
                "detector 'trapdoor' takes a run that was trained with trapdoors: "
                "advbench train honeypot"
            )
        return Trapped(data, trapdoors)

    def fit(self, seen: ModelOutputs, y: Tensor) -> dict[str, Tensor]:
        classes, width = seen.logits.shape[1], seen.features.shape[1]
        sums = seen.features.new_zeros(classes, width).index_add(0, y, seen.features)
        means = sums / torch.bincount(y, minlength=classes).clamp(min=1)[:, None].to(sums)
        draw = stream_generator(self.seed, "neurons")
        compared = torch.zeros(width)
        compared[torch.randperm(width, generator=draw)[: max(1, int(width * self.neurons))]] = 1
        return {"signatures": means, "compared": compared.to(means)}

    def suspicion(self, seen: ModelOutputs, known: Mapping[str, Tensor]) -> Tensor:
        signatures = known["signatures"].to(seen.features)[seen.prediction]
        compared = seen.features * known["compared"].to(seen.features)
        return F.cosine_similarity(compared, signatures, dim=1)


@dataclass(frozen=True)
class Trapped:
    """A data set in which every image carries the trapdoor of another class, its label here.

    The other classes take turns, so that all have equal parts whatever the order of batches.
    """

    data: Examples
    trapdoors: Trapdoors

    @property
    def y(self) -> Tensor:
        """The classes of the trapdoors (N)."""
        own, classes = self.data.y, len(self.trapdoors.masks)
        turn = torch.arange(len(own), device=own.device) % (classes - 1)
        return (own + 1 + turn) % classes

    def images(self, rows: Tensor | slice) -> Tensor:
        """Return the images (B, C, H, W) at these positions, each with its trapdoor."""
        return self.trapdoors.put_on(self.data.images(rows), self.y[rows])

    def expect(self, rows: Tensor) -> None:
        """Say that ``images`` will be asked for these positions."""
        self.data.expect(rows)
