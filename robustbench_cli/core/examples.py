"""Images with labels, wherever they come from."""

from typing import Protocol

from torch import Tensor


class Examples(Protocol):
    """Images with labels: a data split, or tensors in memory."""

    @property
    def y(self) -> Tensor:
        """Labels (N) int64."""

    def images(self, rows: Tensor | slice) -> Tensor:
        """Return the images (B, C, H, W) in [0, 1] at these positions."""

    def expect(self, rows: Tensor) -> None:
        """Say that ``images`` will be asked for these positions (B), in this order."""
