"""Generators: class-conditional models of a data set that draw new images, one file each.

A generator is a frozen dataclass of parameters.  ``fit`` estimates tensors from training images,
and ``draw`` samples an image for each requested class.  The choice of training images and classes
and the output file are the business of ``_sampling`` and of the command.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Registry
from robustbench_cli.data import Split


@dataclass(frozen=True, kw_only=True)
class Generator(ABC):
    """Parameters of a generator."""

    @abstractmethod
    def fit(self, train: Split) -> dict[str, Tensor]:
        """Return tensors estimated from training images; a class may have no image."""

    @abstractmethod
    def draw(self, known: Mapping[str, Tensor], y: Tensor, noise: Noise) -> Tensor:
        """Sample one image for each class.

        Args:
            known: the result of ``fit``.
            y: classes (B, int64).
            noise: random numbers keyed by the new images' ids (B).

        Returns:
            Images (B, C, H, W); they are clipped to [0, 1] afterwards.
        """


GENERATORS: Registry[Generator] = Registry("generator", __name__)
