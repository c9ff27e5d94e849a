"""Views: other models of the same decision, on which an attack may search; one file each.

A model may hide its gradients without being robust.  A view is built from the evaluated model and
answers almost or exactly as it does, but has gradients that an attack can follow: it rescales
logits, lets the gradient through where the model stops it, averages over random draws, or learns
the model's answers.  An attack on a view only proposes images; whether one is misclassified is
decided by the evaluated model itself.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, get_args

from torch import Tensor, nn

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Registry
from robustbench_cli.core.threat import Threat
from robustbench_cli.models.defended import Backward
from robustbench_cli.views._gradients import GradientQuality, measure_gradients

__all__ = [
    "AVERAGED_DECLARED_VIEWS",
    "DECLARED_VIEWS",
    "PROBED_IMAGES",
    "SUBJECT_IMAGES",
    "VIEWS",
    "GradientQuality",
    "View",
    "ViewSubject",
]

SUBJECT_IMAGES = 512
"""The largest number of images of an evaluation from which views are built."""
DECLARED_VIEWS = tuple(f"declared:{each}" for each in get_args(Backward))
"""A view for every way back that an input defense may declare, as they are typed."""
AVERAGED_DECLARED_VIEWS = tuple(f"averaged-{each}" for each in DECLARED_VIEWS)
"""The same for randomised models."""
PROBED_IMAGES = 32
"""Images on which a model's gradients are measured before a view is built."""


@dataclass(frozen=True, kw_only=True)
class ViewSubject:
    """What a view is built from: the evaluated model and some of the evaluation's images.

    The images are drawn by random numbers that belong to examples, so that a view does not depend
    on the order of the examples or on which of them still stand.
    """

    model: nn.Module
    """In evaluation mode, its weights frozen: images (B, C, H, W) in [0, 1] to logits (B, K)."""
    x: Tensor
    """Clean images (M, C, H, W) in [0, 1]."""
    y: Tensor
    """Their true classes (M, int64)."""
    threat: Threat
    """The threat; with a mask, bound to these images."""
    noise: Noise
    """Keyed by example, M of them."""
    random: bool = False
    """True if the model is randomised."""

    def first(self, count: int) -> "ViewSubject":
        """Return the same model with the first ``count`` images."""
        rows = slice(count)
        return ViewSubject(
            model=self.model,
            x=self.x[rows],
            y=self.y[rows],
            threat=self.threat.only(rows),
            noise=self.noise.only(rows),
            random=self.random,
        )

    def gradients_of(self, model: nn.Module) -> GradientQuality:
        """Return how far the gradients of ``model`` agree with this subject's answers."""
        few = self.first(PROBED_IMAGES)
        return measure_gradients(model, self.model, few.x, few.y, few.threat, few.noise)

    @cached_property
    def gradients(self) -> GradientQuality:
        """How far the model's own gradients can be trusted; measured once."""
        return self.gradients_of(self.model)


@dataclass(frozen=True, kw_only=True)
class View(ABC):
    """The parameters of a view, and how it is built."""

    faithful: ClassVar[bool] = True
    """True if its predictions are those of the model, at every image.  Otherwise each image that an
    attack proposes is also classified by the model."""

    @property
    def passes(self) -> int:
        """The number of passes of the model in one pass of the view."""
        return 1

    @abstractmethod
    def build(self, subject: ViewSubject) -> nn.Module | None:
        """Return the view of a model: images (B, C, H, W) in [0, 1] to logits (B, K).

        Examples are independent in it: the answer to an image does not depend on the others.

        Returns:
            None where the model gives no reason for this view, so that nothing is searched on it.
        """


VIEWS: Registry[View] = Registry("view", __name__)
