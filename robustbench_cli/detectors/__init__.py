"""Detectors: scores for how likely a model's prediction is to be wrong, one file each.

A detector is a frozen dataclass of parameters.  ``fit`` estimates tensors from training images, and
``suspicion`` scores predictions.  The choice of images and the detector's evaluation (AUROC) are
the business of ``evaluation.detect``.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from robustbench_cli.core.examples import Examples
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

    reads_kept: ClassVar[bool] = False
    """True if ``training_data`` reads what the training kept beside the model."""

    def training_data(self, data: Examples, kept: Mapping[str, Tensor]) -> Examples:
        """Return the images and labels that it is fitted on; by default the training images.

        Args:
            data: all training images.
            kept: what the defense kept beside the model's weights, by name; empty where there is
                nothing or the detector does not read it.

        Raises:
            UserError: it needs something that was not kept.
        """
        return data

    def fit(self, seen: ModelOutputs, y: Tensor) -> dict[str, Tensor]:
        """Return tensors estimated from what the model makes of ``training_data``; none by default.

        Args:
            y: its labels (B), on the CPU.
        """
        return {}

    @abstractmethod
    def suspicion(self, seen: ModelOutputs, known: Mapping[str, Tensor]) -> Tensor:
        """Return scores (B), higher for predictions more likely to be wrong; only ranks matter.

        Args:
            known: the result of ``fit``.
        """


DETECTORS: Registry[Detector] = Registry("detector", __name__)
