"""Images and labels in memory, where an evaluation expects a data split."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Tensors:
    """Images in memory as ``Examples``."""

    x: Tensor
    """(N, C, H, W) in [0, 1]."""
    y: Tensor
    """Labels (N)."""

    def images(self, rows: Tensor | slice) -> Tensor:
        """Return the images (B, C, H, W) in [0, 1] of these rows."""
        return self.x[rows]

    def expect(self, rows: Tensor) -> None:
        """Do nothing: all images are there."""
