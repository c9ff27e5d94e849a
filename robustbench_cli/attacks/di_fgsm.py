"""Diverse-input iterative FGSM, M-DI2-FGSM (Xie et al., 2019), https://arxiv.org/abs/1803.06978."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, Observation, State, Task
from robustbench_cli.attacks.mim import MIM
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import over


@ATTACKS.register("di-fgsm", aliases=("di2-fgsm",), pattern=r"di2?-fgsm-?(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class DIFGSM(MIM):
    """MI-FGSM whose gradients are taken through a random shrinking and shifting of the image.

    Made for images that are to be tried on another model.  ``decay=0`` is the paper's DI2-FGSM
    without momentum.  The code of the authors enlarges 299 pixels to at most 330 and pads to
    330; here the network's input keeps its size and the image shrinks in it by the same ratio,
    each image by its own.  Only looks at the image itself count; the last one always is.
    """

    prob: Annotated[Number, Field(ge=0, le=1)] = 0.5
    """How often the image is transformed."""
    rate: Annotated[Number, Field(gt=0, le=1)] = 0.9
    """The smallest size that it is shrunk to, relative to its own; 299/330 in the code."""

    def begin(self, task: Task) -> State:
        return {**super().begin(task), "turned": self._turned(task, torch.zeros_like(task.y))}

    def _turned(self, task: Task, step_index: Tensor) -> Tensor:
        like = task.x.flatten(1)[:, 0]
        coin = task.noise.fork("coin").at(step_index).uniform(like)
        return (coin < self.prob) & (step_index < self.steps)

    def seen(self, x: Tensor, state: State, task: Task, step_index: Tensor) -> Tensor:
        if not self.prob:
            return x
        moved = diverse(x, self.rate, task.noise.fork("resize").at(step_index))
        return torch.where(over(state["turned"], x), moved, x)

    def move(self, state: State, observation: Observation, task: Task) -> State:
        return {
            **super().move(state, observation, task),
            "turned": self._turned(task, observation.step_index + 1),
        }

    def counts(self, state: State, step_index: Tensor) -> Tensor:
        return super().counts(state, step_index) & ~state["turned"]


def diverse(x: Tensor, rate: float, noise: Noise) -> Tensor:
    """Each image (B, C, H, W) shrunk to a random size, at a random place on black."""
    drawn = noise.uniform(x.new_empty(len(x), 3))
    size = 1 - (1 - rate) * drawn[:, 0]
    down = _resampler(size, drawn[:, 1], x.shape[2])
    across = _resampler(size, drawn[:, 2], x.shape[3])
    return torch.einsum("bij,bcjk,blk->bcil", down, x, across)


def _resampler(size: Tensor, place: Tensor, pixels: int) -> Tensor:
    """The matrices (B, pixels, pixels) that interpolate linearly along one side of the image.

    A product of matrices, unlike a sampling grid, has a gradient that GPUs sum in a fixed order.
    """
    at = torch.arange(pixels, device=size.device, dtype=size.dtype)
    first = (1 - size) * place * pixels
    source = (at + 0.5 - first[:, None]) / size[:, None] - 0.5
    return (1 - (source[:, :, None] - at).abs()).clamp_min(0)
