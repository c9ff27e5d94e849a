"""Robustness certificates, one file each: what can be proven of a model around an example.

A certificate is a frozen dataclass of parameters.  It gathers evidence on each example (votes on
noisy copies, bounds of logits) and says what the evidence proves.  Journal, shards and figures are
the business of ``evaluation.certify`` and ``commands.certify``.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np
from torch import Tensor, nn

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.examples import Examples
from robustbench_cli.core.registry import Registry
from robustbench_cli.core.threat import Norm, Threat

ABSTAINS = -1
"""The class where a certificate gives none."""


class Certified(NamedTuple):
    """The result for some examples, each array (B)."""

    prediction: np.ndarray
    """The predicted class; ``ABSTAINS`` where the evidence does not decide it."""
    certified: np.ndarray
    """The class that is proven within the radius; ``ABSTAINS`` where none is."""
    radius: np.ndarray
    """The certified radius in the certificate's norm; 0 where no class is proven."""
    confidence: np.ndarray
    """Of votes: the share of all copies for which the model answers the chosen class, or where they
    are drawn a lower bound of that share; of bounds: 1 where a class is proven, else 0."""


@dataclass(frozen=True, kw_only=True)
class ProofSubject:
    """A model, and the examples around which something is to be proven of it."""

    model: nn.Module
    """In evaluation mode and float32 (see ``unchanged_model``): images (B, C, H, W) in [0, 1] to
    logits (B, K)."""
    data: Examples
    """N examples."""
    noise: Noise
    """Keyed by example, as many as ``data`` has."""
    classes: int
    threat: Threat
    """The evaluation's ball."""
    batch: int
    """The number of images in a forward pass; what is proven does not depend on it."""

    @cached_property
    def image_shape(self) -> tuple[int, ...]:
        """The size of an image, (C, H, W)."""
        return tuple(self.data.images(slice(1)).shape[1:])


class ProofEvidence(NamedTuple):
    """What a certificate has gathered on some examples."""

    rows: np.ndarray
    """Their positions (B)."""
    arrays: Mapping[str, np.ndarray]
    """By the names of ``Certificate.kept``, each (B, ...)."""


@dataclass(frozen=True, kw_only=True)
class Certificate(ABC):
    """Parameters of a certificate."""

    behind_defenses: ClassVar[bool] = False
    """True if its proof holds for a model behind input defenses, random ones among them, too."""
    of_the_model: ClassVar[bool] = False
    """True if what is proven holds, for certain, of the model that attacks are judged on; False if
    it holds of another predictor, or only with some confidence."""

    @abstractmethod
    def passes(self, subject: ProofSubject) -> int:
        """Return the number of forward passes per example."""

    @abstractmethod
    def norm_under(self, threat: Threat) -> Norm:
        """Return the norm in which radii are proven, where the evaluation has this ball."""

    @abstractmethod
    def reported(self, threat: Threat) -> list[Threat]:
        """Return the balls within which certified accuracy is reported, beside ``threat``."""

    @abstractmethod
    def kept(self, subject: ProofSubject) -> dict[str, np.ndarray]:
        """Return empty evidence on one example: arrays by name, of the shape and dtype it has."""

    @abstractmethod
    def evidence(self, subject: ProofSubject, rows: Tensor) -> Iterator[ProofEvidence]:
        """Yield the evidence on the examples ``rows`` (positions (B)), as it is complete.

        The evidence on an example depends neither on the other examples nor on ``subject.batch``.

        Raises:
            UserError: the model returned NaN or infinite logits.
        """

    @abstractmethod
    def certify(self, evidence: Mapping[str, np.ndarray]) -> Certified:
        """Return what the evidence, arrays (B, ...) by name, proves."""

    def check(self, subject: ProofSubject) -> None:
        """Refuse a model that the certificate can say nothing about; by default none.

        Raises:
            UserError: the part of the model for which there is no proof, by name.
        """

    def notes(self, subject: ProofSubject) -> list[str]:
        """Return what a reader of the figures must know of this model; as a rule nothing."""
        return []

    def limit(self, subject: ProofSubject, reach: float) -> str:
        """Return what keeps any example from being certified in the evaluation's ball, if anything.

        Args:
            subject: with that ball, ``threat``.
            reach: its radius in the certificate's norm.
        """
        return ""


CERTIFICATES: Registry[Certificate] = Registry("certificate", __name__)
