"""Local gradients smoothing (Naseer et al., 2019), https://arxiv.org/abs/1807.01216.

A defense against visible, localised perturbations.  That such defenses fall to a patch which is
made for them was shown by Chiang et al. (2020), https://arxiv.org/abs/2003.06693.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor
from torchvision.transforms.functional import rgb_to_grayscale

from robustbench_cli.core.registry import Number
from robustbench_cli.input_defenses import INPUT_DEFENSES, Backward, DefenseContext, InputDefense


@INPUT_DEFENSES.register("lgs")
@dataclass(frozen=True, kw_only=True)
class LGS(InputDefense):
    """Darken pixels with a steep gradient where a whole window of the image is steep.

    The length of the gradient of the grey image (differences to the next pixel), scaled to [0, 1]
    by its largest and smallest value, is kept in windows whose mean exceeds the threshold and set
    to zero elsewhere.  Pixels are multiplied by 1 minus that times ``strength``, clipped to [0, 1].
    A last row and column of windows lies flush with the border, so that every pixel is in one; the
    window of a smaller image is the image.
    """

    hides: ClassVar[str] = "the threshold that chooses windows, whose gradient is zero"
    backwards: ClassVar[tuple[Backward, ...]] = ("exact", "straight-through", "smoothed")

    window: Annotated[int, Field(ge=1)] = 15
    """Side of a window, in pixels."""
    overlap: Annotated[int, Field(ge=0)] = 5
    """Pixels that neighbouring windows share."""
    threshold: Annotated[Number, Field(ge=0, le=1)] = 0.1
    """The mean above which the gradient of a window is kept; gamma in the paper."""
    strength: Annotated[Number, Field(ge=0)] = 2.3
    """The factor of the gradient; lambda in the paper."""
    softness: Annotated[Number, Field(gt=0)] = 0.02
    """The width of the sigmoid that stands for the threshold in the smoothed backward pass."""

    def __post_init__(self) -> None:
        if self.overlap >= self.window:
            raise ValueError(f"overlap {self.overlap} must be below window {self.window}")

    def cleaned(self, x: Tensor, context: DefenseContext) -> Tensor:
        return self._darkened(x, self._in_any)

    def smoothed(self, x: Tensor, context: DefenseContext) -> Tensor:
        """Return the images with a sigmoid in the place of the threshold."""
        return self._darkened(x, self._likely_in_any)

    def _darkened(self, x: Tensor, masked: "_Masked") -> Tensor:
        steep = _steepness(x)
        (high, rows), (wide, columns) = (self._windows(side, x.device) for side in x.shape[2:])
        in_row, in_column = (
            starts[:, None] + torch.arange(length, device=x.device)
            for length, starts in ((high, rows), (wide, columns))
        )
        means = steep[:, 0][:, in_row][..., in_column].mean((2, 4))  # (B, rows, columns)
        covers = [
            _covers(starts, length, side).to(x)
            for starts, length, side in zip((rows, columns), (high, wide), x.shape[2:], strict=True)
        ]
        mask = masked(means, *covers)[:, None]
        return x * (1 - (self.strength * steep * mask).clamp(0, 1))

    def _in_any(self, means: Tensor, covers_row: Tensor, covers_column: Tensor) -> Tensor:
        """1 for pixels that are in a window above the threshold, 0 for others (B, H, W)."""
        kept = (means > self.threshold).to(means)
        return (torch.einsum("hi,bij,wj->bhw", covers_row, kept, covers_column) > 0).to(means)

    def _likely_in_any(self, means: Tensor, covers_row: Tensor, covers_column: Tensor) -> Tensor:
        """The same where each window is kept with a probability, independently of the others."""
        kept = ((means - self.threshold) / self.softness).sigmoid()
        outside = torch.log1p(-kept.clamp(max=1 - 1e-6))
        return -torch.expm1(torch.einsum("hi,bij,wj->bhw", covers_row, outside, covers_column))

    def _windows(self, side: int, device: torch.device) -> tuple[int, Tensor]:
        """The length of the windows along a side, and the first pixel of each (windows)."""
        last, stride = max(0, side - self.window), self.window - self.overlap
        starts = torch.arange(-(-last // stride) + 1, device=device) * stride
        return min(self.window, side), starts.clamp(max=last)


_Masked = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From the means of windows (B, rows, columns) and the windows that cover each row (H, rows) and
column (W, columns) of pixels to a mask (B, H, W)."""


def _steepness(x: Tensor) -> Tensor:
    """The length of the grey image's gradient (B, 1, H, W), scaled to [0, 1]."""
    grey = rgb_to_grayscale(x) if x.shape[1] == 3 else x.mean(1, keepdim=True)
    across, down = F.pad(grey.diff(dim=3), (0, 1)), F.pad(grey.diff(dim=2), (0, 0, 0, 1))
    square = across.square() + down.square()
    # The root has no gradient at zero.
    length = torch.where(square > 0, square, torch.ones_like(square)).sqrt() * (square > 0)
    low, high = length.amin((2, 3), keepdim=True), length.amax((2, 3), keepdim=True)
    return (length - low) / (high - low + 1e-7)


def _covers(starts: Tensor, length: int, side: int) -> Tensor:
    """True where a pixel lies in a window along one axis (side, windows)."""
    after = torch.arange(side, device=starts.device)[:, None] - starts
    return (after >= 0) & (after < length)
