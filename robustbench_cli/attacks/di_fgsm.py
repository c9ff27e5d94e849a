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
    """MI-FGSM with gradients taken at randomly resized and padded copies of the image.

    Meant for transfer: the images are to be classified by another model.  ``decay=0`` is the
    paper's DI2-FGSM without momentum.  The authors' code enlarges images of 299 pixels to at most
    330 and pads them to 330; here the input size stays and the image is shrunk in it by the same
    ratio, each image by its own.  A misclassification counts only where the image itself was
    classified, which is always so at the last iterate.
    """

    prob: Annotated[Number, Field(ge=0, le=1)] = 0.5
    """Probability that the image is transformed at a step."""
    rate: Annotated[Number, Field(gt=0, le=1)] = 0.9
    """Smallest size after shrinking, as a share of the image's; 299/330 in the authors' code."""

    def begin(self, task: Task) -> State:
        first = torch.zeros_like(task.y)
        return {**super().begin(task), "transformed": self._transformed(task, first)}

    def _transformed(self, task: Task, step_index: Tensor) -> Tensor:
        """Return a bool mask (B) of the images that are transformed at this step."""
        like = task.x.flatten(1)[:, 0]
        coin = task.noise.fork("coin").at(step_index).uniform(like)
        return (coin < self.prob) & (step_index < self.steps)

    def seen(self, x: Tensor, state: State, task: Task, step_index: Tensor) -> Tensor:
        if not self.prob:
            return x
        moved = diverse(x, self.rate, task.noise.fork("resize").at(step_index))
        return torch.where(over(state["transformed"], x), moved, x)

    def move(self, state: State, observation: Observation, task: Task) -> State:
        return {
            **super().move(state, observation, task),
            "transformed": self._transformed(task, observation.step_index + 1),
        }

    def counts(self, state: State, step_index: Tensor) -> Tensor:
        return super().counts(state, step_index) & ~state["transformed"]


def diverse(x: Tensor, rate: float, noise: Noise) -> Tensor:
    """Return each image (B, C, H, W) shrunk to a random size, at a random place on black.

    Args:
        rate: the smallest size as a share of the image's side; sizes are uniform from it to 1.
    """
    drawn = noise.uniform(x.new_empty(len(x), 3))
    size = 1 - (1 - rate) * drawn[:, 0]
    down = _resampler(size, drawn[:, 1], x.shape[2])
    across = _resampler(size, drawn[:, 2], x.shape[3])
    return torch.einsum("bij,bcjk,blk->bcil", down, x, across)


def _resampler(size: Tensor, place: Tensor, pixels: int) -> Tensor:
    """Return matrices (B, pixels, pixels) that resize linearly along one axis of the image.

    A product of matrices, unlike ``grid_sample``, has a gradient that GPUs compute
    deterministically.

    Args:
        size: the new size as a share of the old one (B).
        place: the position of the shrunk image, from 0 (start) to 1 (end) of the free room (B).
    """
    at = torch.arange(pixels, device=size.device, dtype=size.dtype)
    first = (1 - size) * place * pixels
    source = (at + 0.5 - first[:, None]) / size[:, None] - 0.5
    return (1 - (source[:, :, None] - at).abs()).clamp_min(0)
