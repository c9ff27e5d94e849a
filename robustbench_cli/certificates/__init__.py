"""Certificates: one file each, found by name.

A certificate is a frozen dataclass of parameters for a model that is asked about many noisy copies
of an example.  It says how the copies are made and what the votes on them prove.  Which copies
share a batch, in what precision the model runs and what is resumed belongs to ``engine``.
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
"""Stands for the class where a certificate gives none."""


class Certified(NamedTuple):
    """What is known of some examples, each array (B)."""

    prediction: np.ndarray
    """The class that is predicted; ``ABSTAINS`` where the votes do not decide it."""
    certified: np.ndarray
    """The class that is proven to hold within the radius; ``ABSTAINS`` where none is."""
    radius: np.ndarray
    """How far, in the certificate's norm; 0 where no class is proven."""


@dataclass(frozen=True, kw_only=True)
class Certificate(ABC):
    """Parameters of a certificate by votes."""

    norm: ClassVar[Norm] = "L2"
    """What the radius is measured in."""

    @property
    @abstractmethod
    def polls(self) -> tuple[int, ...]:
        """How many copies of an example vote in each of its polls, which are independent."""

    @property
    @abstractmethod
    def furthest(self) -> float:
        """The radius that unanimous votes prove: no other is larger."""

    @abstractmethod
    def copies(self, x: Tensor, noise: Noise) -> Tensor:
        """Noisy images for images ``x`` (B, C, H, W), each row a draw of its own in ``noise``."""

    @abstractmethod
    def certify(self, votes: np.ndarray) -> Certified:
        """What votes (B, polls, classes) prove."""


CERTIFICATES: Registry[Certificate] = Registry("certificate", __name__)
