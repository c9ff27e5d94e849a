"""(De)randomized smoothing against patches (Levine & Feizi, 2020),
https://arxiv.org/abs/2002.10733."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field
from torch import Tensor

from robustbench_cli.certificates import ABSTAINS, CERTIFICATES, Certified, ProofSubject
from robustbench_cli.certificates._masked import MaskedVoting
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.image_parts import Piece, Pieces
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import Norm


@CERTIFICATES.register("derandomized")
@dataclass(frozen=True, kw_only=True)
class Derandomized(MaskedVoting):
    """The class with the most votes of all bands (or blocks), and the patch that cannot change it.

    The model is shown every band once, with the rest of the image hidden; each band votes for all
    classes whose probability is at least ``threshold``.  The class with the most votes is
    predicted, of several the first.  A patch of m x m pixels, anywhere, meets at most
    D = m + width - 1 bands (D^2 blocks), of which each can take one vote from it and give one to
    another class: it stays ahead where its lead is more than 2 D, or 2 D over a later class.  The
    radius is the largest such m.  Nothing is random.

    Where no class has a vote none is predicted; in the official code that is class 0.  Defaults are
    those of the paper's best model on CIFAR-10; the official scripts begin at a threshold of 0.2,
    and the paper's on MNIST are bands of 2 pixels.
    """

    norm: ClassVar[Norm] = "patch"
    digits: ClassVar[int] = 0
    radii: ClassVar[tuple[float, ...]] = (2, 3, 4, 5, 6, 8, 10)

    piece: Piece = "column"
    """What is seen: column (a band of full height), row (of full width), or block (a square)."""
    width: Annotated[int, Field(ge=1)] = 4
    """Width of a band, side of a block, in pixels."""
    threshold: Annotated[Number, Field(gt=0, le=1)] = 0.3
    """Probability from which on a class gets a vote."""

    @property
    def shows(self) -> str:
        return str(Pieces(self.piece, self.width, (0, 0)))

    def pieces(self, image: tuple[int, ...]) -> Pieces:
        """Return the pieces of images of this size (C, H, W)."""
        return Pieces(self.piece, self.width, (image[1], image[2]))

    def check(self, subject: ProofSubject) -> None:
        super().check(subject)
        side = min(subject.image_shape[1:])
        if self.width > side:
            raise UserError(f"derandomized:width={self.width}: images have {side} pixels a side")

    def polls(self, image: tuple[int, ...]) -> tuple[int, ...]:
        return (self.pieces(image).count,)

    def max_radius(self, image: tuple[int, ...]) -> float:
        pieces = self.pieces(image)
        return float(self.patches(np.array([pieces.count]), pieces)[0])

    def seen(self, x: Tensor, noise: Noise, copy: Tensor) -> Tensor:
        return self.pieces(tuple(x.shape[1:])).at(copy)

    def ballots(self, logits: Tensor) -> Tensor:
        return logits.softmax(1) >= self.threshold

    def certify(self, evidence: Mapping[str, np.ndarray]) -> Certified:
        votes = evidence["votes"][:, 0].astype(int)
        winner = votes.argmax(1)  # the first of several
        lead = np.take_along_axis(votes, winner[:, None], 1) - votes
        # Over a class that comes before it, the lead must not fall to a tie.
        lead -= np.arange(votes.shape[1]) < winner[:, None]
        np.put_along_axis(lead, winner[:, None], lead.max() + 1, 1)
        pieces = self.pieces(tuple(evidence["image"][0].tolist()))
        named = np.where(votes.any(1), winner, ABSTAINS)
        return Certified(
            prediction=named,
            certified=named,
            radius=self.patches(lead.min(1), pieces),
            confidence=votes.max(1) / pieces.count,
        )

    def patches(self, lead: np.ndarray, pieces: Pieces) -> np.ndarray:
        """Return the side of the largest patch (B) that a lead withstands, 0 for none.

        Args:
            lead: by how many votes the class is ahead of every other, ties resolved (B).
            pieces: what votes.
        """
        costs = [2 * pieces.touched(side) for side in range(1, min(pieces.size) + 1)]
        return np.searchsorted(costs, lead, side="right").astype(float)
