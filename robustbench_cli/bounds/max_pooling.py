"""Max-pooling: bounds through the largest value of each window."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from robustbench_cli.bounds.interval import Interval, summed
from robustbench_cli.bounds.operations import Operation

Pair = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class MaxPooling(Operation):
    """The largest value of each window of images (B, C, H, W).

    It is at least the value with the largest lower bound, and equal to it where that bound is above
    all others' upper ones; otherwise it is at most the largest upper bound (Singh et al., 2019,
    https://doi.org/10.1145/3290354).
    """

    linear: ClassVar[bool] = False

    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    ceil_mode: bool = False

    def interval(self, inputs: Sequence[Interval], unit: float) -> Interval:
        (x,) = inputs
        return Interval(self.pooled(x.low)[0], self.pooled(x.high)[0])

    def pooled(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the largest values of images ``x``, and their places among each one's H W."""
        found: tuple[Tensor, Tensor] = F.max_pool2d(
            x,
            self.kernel,
            self.stride,
            self.padding,
            self.dilation,
            ceil_mode=self.ceil_mode,
            return_indices=True,
        )
        return found

    def backward(self, a: Tensor, inputs: Sequence[Interval]) -> tuple[list[Tensor], Tensor]:
        (x,) = inputs
        _, place, settled = self._winners(x)
        most, _ = self.pooled(x.high)
        up, down = a.clamp_min(0), a.clamp_max(0)
        kept = settled.unsqueeze(1)
        flat = torch.zeros(*a.shape[:3], x.low[0, 0].numel(), dtype=a.dtype, device=a.device)
        moved = (up + torch.where(kept, down, 0)).flatten(3)
        places = place.flatten(2).unsqueeze(1).expand(-1, a.shape[1], -1, -1)
        coefficients = flat.scatter_add(3, places, moved).view(*a.shape[:3], *x.low.shape[2:])
        return [coefficients], summed(torch.where(kept, 0, down), most)

    def unsettled(self, bounds: Interval) -> Tensor:
        _, _, settled = self._winners(bounds)
        with torch.enable_grad():
            # Which values the windows without a winner read: those with a gradient.
            x = torch.zeros_like(bounds.low).requires_grad_()
            sums = self._each_window(x, 0.0).sum(0)
        (read,) = torch.autograd.grad(sums, x, (~settled).to(x))
        return read > 0

    def _winners(self, x: Interval) -> tuple[Tensor, Tensor, Tensor]:
        """Return of each window (B, C, H', W') the largest lower bound, its place among the H W,
        and whether its value is the largest for certain."""
        least, place = self.pooled(x.low)
        numbers = torch.arange(math.prod(x.low.shape[2:]), device=x.low.device).to(x.low)
        numbers = self._each_window(numbers.view(1, 1, *x.low.shape[2:]), -1)
        others = self._each_window(x.high, -torch.inf)
        others = torch.where(numbers != place, others, -torch.inf)
        return least, place, others.amax(0) <= least

    def _each_window(self, x: Tensor, beyond: float) -> Tensor:
        """Return the values of each window (kernel area, B, C, H', W').

        Args:
            x: images (B, C, H, W).
            beyond: the value outside of them.
        """
        h, w = x.shape[2:]
        oh, ow = self.pooled(torch.empty(1, 1, h, w, device="meta"))[0].shape[2:]
        (kh, kw), (sh, sw), (ph, pw) = self.kernel, self.stride, self.padding
        dh, dw = self.dilation
        # Enough room at the far side for windows that ceil_mode lets hang over it.
        down = max(0, (oh - 1) * sh + dh * (kh - 1) + 1 - h - ph)
        right = max(0, (ow - 1) * sw + dw * (kw - 1) + 1 - w - pw)
        padded = F.pad(x, (pw, right, ph, down), value=beyond)
        starts = [(i * dh, j * dw) for i in range(kh) for j in range(kw)]
        return torch.stack(
            [
                padded[..., i : i + (oh - 1) * sh + 1 : sh, j : j + (ow - 1) * sw + 1 : sw]
                for i, j in starts
            ]
        )
