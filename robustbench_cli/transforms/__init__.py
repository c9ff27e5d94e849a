"""Image transforms: deterministic, differentiable maps applied before a model classifies an image.

``advbench joint`` searches for one perturbation that survives several of them, as in section 4.4
of Wang et al. (2021), https://arxiv.org/abs/1906.03563.  Every module of this package is imported
on first use, so a new transform is one new file.
"""

from abc import ABC, abstractmethod

from torch import Tensor

from robustbench_cli.core.registry import Registry


class Transform(ABC):
    """A deterministic, differentiable map from images to images."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """Transform images (B, C, H, W) in [0, 1]; the result has the same shape and range."""


TRANSFORMS: Registry[Transform] = Registry("transform", __name__)
