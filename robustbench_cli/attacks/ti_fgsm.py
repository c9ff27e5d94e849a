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
    """MI-FGSM on gradients convolved with a Gaussian, as an average over translated images.

    Meant for transfer: the images are to be classified by another model.  The convolution
    approximates the average over shifted images (section 3 of the paper).  The paper's TI-DIM is
    ``ti-fgsm:prob=0.4``; ``decay=0`` leaves the momentum out.  The kernel is the authors', made
    for images of 299 pixels; it is the same here for smaller ones.
    """

    prob: Annotated[Number, Field(ge=0, le=1)] = 0.0
    """Probability that the image is transformed at a step as in ``di-fgsm``."""
    kernel: Annotated[int, Field(ge=1)] = 15
    """Side of the Gaussian kernel in pixels, an odd number."""

    def __post_init__(self) -> None:
        """Check the parameters.

        Raises:
            ValueError: an even kernel side, or steps that cannot reach the border of the ball.
        """
        super().__post_init__()
        if self.kernel % 2 == 0:
            raise ValueError(f"the kernel's side must be odd, got {self.kernel}")

    def direction(self, grad: Tensor, state: State, task: Task) -> tuple[Tensor, State]:
        return super().direction(blurred(grad, gaussian(self.kernel, grad)), state, task)


def gaussian(length: int, like: Tensor) -> Tensor:
    """Return Gaussian weights (length) that sum to 1 and span +-3 standard deviations."""
    at = torch.linspace(-3, 3, length, device=like.device, dtype=like.dtype)
    weights = torch.exp(-(at**2) / 2)
    return weights / weights.sum()


def blurred(grad: Tensor, weights: Tensor) -> Tensor:
    """Convolve each channel of ``grad`` (B, C, H, W) with the outer product of ``weights``.

    Args:
        weights: a one-dimensional kernel (length), an odd number of weights; zero padding.
    """
    planes = grad.flatten(0, 1)[:, None]
    planes = F.conv2d(planes, weights.view(1, 1, -1, 1), padding="same")
    return F.conv2d(planes, weights.view(1, 1, 1, -1), padding="same").view_as(grad)
