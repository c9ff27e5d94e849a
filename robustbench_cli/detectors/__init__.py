"""Detectors: scores for how likely a model's prediction is to be wrong, one file each.

A detector is a frozen dataclass of parameters.  ``fit`` estimates tensors from training images, and
``suspicion`` scores predictions.  The choice of images and the detector's evaluation (AUROC) are
the business of ``evaluation.detect``.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from robustbench_cli.core.registry import Registry


class ModelOutputs(NamedTuple):
    """A model's outputs for some images."""

    features: Tensor
    """Penultimate features (B, F), the input of the last layer."""
    logits: Tensor
    """Logits (B, K)."""

    @property
    def prediction(self) -> Tensor:
        """The predicted classes (B)."""
        return self.logits.argmax(1)


@dataclass(frozen=True, kw_only=True)
class Detector(ABC):
    """Parameters of a detector."""

    def fit(self, seen: ModelOutputs, y: Tensor) -> dict[str, Tensor]:
        """Return tensors estimated from training images with classes ``y`` (B); none by default."""
        return {}

    @abstractmethod
    def suspicion(self, seen: ModelOutputs, known: Mapping[str, Tensor]) -> Tensor:
        """Return scores (B), higher for predictions more likely to be wrong; only ranks matter.

        Args:
            known: the result of ``fit``.
        """


DETECTORS: Registry[Detector] = Registry("detector", __name__)
