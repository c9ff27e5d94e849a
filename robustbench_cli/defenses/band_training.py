"""Base classifiers of (de)randomized smoothing against patches (Levine & Feizi, 2020),
https://arxiv.org/abs/2002.10733."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.image_parts import Piece, Pieces
from robustbench_cli.defenses import DEFENSES
from robustbench_cli.defenses._seen_parts import SeenParts
from robustbench_cli.defenses._step import Step
from robustbench_cli.models import Classifier, Shape


@DEFENSES.register("band-training")
@dataclass(frozen=True, kw_only=True)
class BandTraining(SeenParts):
    """The criterion on images of which one band, or block, is seen; certify with ``derandomized``.

    Defaults are those of the paper's best model on CIFAR-10.  The official code shows the same band
    of all images of a batch; here each image has its own, which does not depend on the others.  The
    radius of the threat is not used.
    """

    piece: Piece = "column"
    """What is seen: column (a band of full height), row (of full width), or block (a square)."""
    width: Annotated[int, Field(ge=1)] = 4
    """Width of a band, side of a block, in pixels; certify with the same one."""

    @property
    def shows(self) -> str:
        return str(Pieces(self.piece, self.width, (0, 0)))

    def network(self, build: Callable[[Shape], Classifier], shape: Shape) -> Classifier:
        if self.width > (side := min(shape.height, shape.width)):
            raise UserError(f"band-training:width={self.width}: images have {side} pixels a side")
        return super().network(build, shape)

    def seen(self, step: Step) -> Tensor:
        x = step.x
        pieces = Pieces(self.piece, self.width, (x.shape[2], x.shape[3]))
        draw = step.noise.fork("seen").uniform(x.new_empty(len(x), 1)).squeeze(1)
        return pieces.at((draw.double() * pieces.count).long())
