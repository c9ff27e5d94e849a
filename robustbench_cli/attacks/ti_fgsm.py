"""Translation-invariant FGSM, TI-MI-FGSM (Dong et al., 2019), https://arxiv.org/abs/1904.02884."""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, State, Task
from robustbench_cli.attacks.di_fgsm import DIFGSM
from robustbench_cli.core.registry import Number


@ATTACKS.register("ti-fgsm", pattern=r"ti-fgsm-?(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class TIFGSM(DIFGSM):
    """MI-FGSM on gradients that are blurred, as if taken at many translations of the image.

    Made for images that are to be tried on another model.  The paper's TI-DIM is
    ``ti-fgsm:prob=0.4``; ``decay=0`` leaves the momentum out.  The kernel is meant for images of
    299 pixels and is kept for smaller ones.
    """

    prob: Annotated[Number, Field(ge=0, le=1)] = 0.0
    """How often the image is transformed as ``di-fgsm`` does it."""
    kernel: Annotated[int, Field(ge=1)] = 15
    """Length of the Gaussian kernel's sides in pixels, an odd number."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel % 2 == 0:
            raise ValueError(f"the kernel's side must be odd, got {self.kernel}")

    def direction(self, grad: Tensor, state: State, task: Task) -> tuple[Tensor, State]:
        return super().direction(blurred(grad, gaussian(self.kernel, grad)), state, task)


def gaussian(length: int, like: Tensor) -> Tensor:
    """Weights (length) that sum to one and reach three standard deviations to either side."""
    at = torch.linspace(-3, 3, length, device=like.device, dtype=like.dtype)
    weights = torch.exp(-(at**2) / 2)
    return weights / weights.sum()


def blurred(grad: Tensor, weights: Tensor) -> Tensor:
    """Convolve every channel with the outer product of ``weights`` and itself, zero-padded."""
    planes = grad.flatten(0, 1)[:, None]
    planes = F.conv2d(planes, weights.view(1, 1, -1, 1), padding="same")
    return F.conv2d(planes, weights.view(1, 1, 1, -1), padding="same").view_as(grad)
