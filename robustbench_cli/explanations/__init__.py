"""Explanations: maps of what a model's answer to an image depends on, one file each.

An explanation is a frozen dataclass of parameters with one method, ``attributions``.  Measures of
explanations, pictures and records are the business of ``commands.explain``; ``commands.invert``
asks what a published explanation gives away.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Registry


@dataclass(frozen=True, kw_only=True)
class ExplainedImages:
    """A model's answers to a batch of images, which are to be explained."""

    model: nn.Module
    """In evaluation mode and float32: images (B, C, H, W) in [0, 1] to logits (B, K)."""
    x: Tensor
    """Images (B, C, H, W) in [0, 1]."""
    target: Tensor
    """The class whose score is explained for each image (B), as a rule the predicted one."""
    noise: Noise
    """Random numbers keyed by example, for B examples."""


@dataclass(frozen=True, kw_only=True)
class Explained:
    """What a method says of a batch of images."""

    attributions: Tensor
    """What each pixel contributes (B, C or 1, H, W), as ``Explanation.attributions`` returns it."""
    counterfactual: Tensor | None = None
    """Images (B, C, H, W) to which the method would change these; None: it makes none.  They may
    leave [0, 1]."""
    facts: Mapping[str, Tensor] = field(default_factory=dict)
    """Further numbers of each image (B), by the name that tables give them."""


@dataclass(frozen=True, kw_only=True)
class Explanation(ABC):
    """Parameters of an explanation method."""

    @abstractmethod
    def attributions(self, asked: ExplainedImages) -> Tensor:
        """Return what each pixel contributes, signed where the method has a sign.

        The result of an image depends on it alone, whatever else is in the batch.

        Returns:
            Attributions (B, C or 1, H, W) of the images' height and width, detached.

        Raises:
            UserError: the model has no layer that the method needs, or its package is absent.
        """

    def explained(self, asked: ExplainedImages) -> Explained:
        """Return the attributions, and what else the method makes on the way to them.

        Raises:
            UserError: as ``attributions`` does.
        """
        return Explained(attributions=self.attributions(asked))

    def saliency(self, attributions: Tensor) -> Tensor:
        """Return importances (B, H, W), none below 0, for ranking pixels and for pictures.

        By default the mean over the channels of the absolute attributions.
        """
        return attributions.abs().mean(1)


@dataclass(frozen=True, kw_only=True)
class CounterfactualExplanation(Explanation):
    """A method that changes the image: its attributions are the change, new minus old."""

    @abstractmethod
    def changed(self, asked: ExplainedImages) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the changed images (B, C, H, W), detached, and further numbers of each image (B).

        The result of an image depends on it alone, whatever else is in the batch.

        Raises:
            UserError: the model has no layer that the method needs.
        """

    def attributions(self, asked: ExplainedImages) -> Tensor:
        return self.explained(asked).attributions

    def explained(self, asked: ExplainedImages) -> Explained:
        image, facts = self.changed(asked)
        return Explained(attributions=image - asked.x, counterfactual=image, facts=facts)


EXPLANATIONS: Registry[Explanation] = Registry("explanation", __name__)
