"""Detectors: one file each, found by name.  They say which answers of a model not to trust.

A detector is a frozen dataclass of parameters.  It learns tensors from training images, once, and
then gives a number to each answer.  Which images it sees and how it is scored belongs to
``engine``.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from robustbench_cli.core.registry import Registry


class Seen(NamedTuple):
    """What a model makes of some images."""

    features: Tensor
    """(B, F), what its last layer reads."""
    logits: Tensor
    """(B, classes)."""

    @property
    def answer(self) -> Tensor:
        """The predicted classes (B)."""
        return self.logits.argmax(1)


@dataclass(frozen=True, kw_only=True)
class Detector(ABC):
    """Parameters of a detector."""

    def fit(self, seen: Seen, y: Tensor) -> dict[str, Tensor]:
        """What is learned from training images and their classes ``y`` (B); nothing by default."""
        return {}

    @abstractmethod
    def suspicion(self, seen: Seen, known: Mapping[str, Tensor]) -> Tensor:
        """How likely each answer is to be wrong (B): only the order counts.

        Args:
            known: what ``fit`` returned.
        """


DETECTORS: Registry[Detector] = Registry("detector", __name__)
