"""Robustness certificates by votes of a model on noisy copies of an example, one file each.

A certificate is a frozen dataclass of parameters.  It defines how the copies are made and what the
votes on them prove.  Batching, the model's precision and resuming are the business of
``evaluation.certify``.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from torch import Tensor

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Registry
from robustbench_cli.core.threat import Norm

ABSTAINS = -1
"""The class where a certificate gives none."""


class Certified(NamedTuple):
    """The result for some examples, each array (B)."""

    prediction: np.ndarray
    """The predicted class; ``ABSTAINS`` where the votes do not decide it."""
    certified: np.ndarray
    """The class that is proven within the radius; ``ABSTAINS`` where none is."""
    radius: np.ndarray
    """The certified radius in the certificate's norm; 0 where no class is proven."""


@dataclass(frozen=True, kw_only=True)
class Certificate(ABC):
    """Parameters of a certificate by votes."""

    norm: ClassVar[Norm] = "L2"
    """The norm of the radius."""

    @property
    @abstractmethod
    def polls(self) -> tuple[int, ...]:
        """The number of noisy copies per example in each of the independent polls."""

    @property
    @abstractmethod
    def max_radius(self) -> float:
        """The largest radius that can be certified, by unanimous votes."""

    @abstractmethod
    def copies(self, x: Tensor, noise: Noise) -> Tensor:
        """Return a noisy copy of each image.

        Args:
            x: images (B, C, H, W) in [0, 1].
            noise: one independent draw per row.

        Returns:
            Copies (B, C, H, W), not necessarily in [0, 1].
        """

    @abstractmethod
    def certify(self, votes: np.ndarray) -> Certified:
        """Return what the votes prove.

        Args:
            votes: counts of predictions (B, polls, K) over K classes.
        """


CERTIFICATES: Registry[Certificate] = Registry("certificate", __name__)
