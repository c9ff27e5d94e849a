"""Generators: one file each, found by name.  They make images that stand for a data set.

A generator is a frozen dataclass of parameters.  It learns tensors from training images, once, and
then draws an image of a wanted class for each example.  Which images it sees, which classes are
drawn and where the images go belongs to ``engine`` and ``run``.
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
        """What is learned from training images; a class may have none."""

    @abstractmethod
    def draw(self, known: Mapping[str, Tensor], y: Tensor, noise: Noise) -> Tensor:
        """An image (B, C, H, W) of each class ``y`` (B, int64); [0, 1] is enforced afterwards.

        Args:
            known: what ``fit`` returned.
            noise: of the images to be drawn, one id each.
        """


GENERATORS: Registry[Generator] = Registry("generator", __name__)
