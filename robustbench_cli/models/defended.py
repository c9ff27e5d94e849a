"""A classifier behind input defenses: the image is changed first, then classified.

Each defense declares what of it has no useful gradient, and the backward passes by which an attack
may go through it all the same (Athalye et al., 2018, https://arxiv.org/abs/1802.00420, backward
pass differentiable approximation).  Whichever is followed, what the model computes is the same.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.models.bpda import swap_gradient
from robustbench_cli.models.keyed_draws import DrawingModule
from robustbench_cli.models.taps import last_layer

Backward = Literal["exact", "straight-through", "smoothed"]
"""exact: the gradient of what is computed, with decisions such as a mask held constant;
straight-through: that of the identity; smoothed: that of a smooth stand-in."""


@dataclass(frozen=True, kw_only=True)
class DefenseContext:
    """What an input defense knows beside the images."""

    model: Callable[[Tensor], Tensor]
    """The classifier that it stands in front of: images (B, C, H, W) in [0, 1] to logits (B, K)."""
    noise: Noise
    """The random numbers of this pass, keyed by example, B of them."""


@dataclass(frozen=True, kw_only=True)
class InputDefense(ABC):
    """Parameters of a change that is made to every image before it is classified."""

    hides: ClassVar[str]
    """What of it has no gradient, or none that helps an attack, in words."""
    backwards: ClassVar[tuple[Backward, ...]]
    """The backward passes that it declares; gradient attacks follow the first one."""

    @property
    def randomised(self) -> bool:
        """True if it draws random numbers, so that one pass decides nothing."""
        return False

    @property
    def dynamic(self) -> bool:
        """True if it takes gradients of the classifier in its forward pass."""
        return False

    def check(self, shape: Sequence[int]) -> None:
        """Check that it can take images of a shape (C, H, W).

        Raises:
            UserError: it cannot.
        """

    @abstractmethod
    def cleaned(self, x: Tensor, context: DefenseContext) -> Tensor:
        """Return what the classifier is shown.

        An image's result depends neither on the other images nor on their number.

        Args:
            x: images (B, C, H, W) in [0, 1].

        Returns:
            Images of the same shape in [0, 1].  Where ``exact`` is declared they carry its
            gradient with respect to ``x``.
        """

    def smoothed(self, x: Tensor, context: DefenseContext) -> Tensor:
        """Return the smooth stand-in of ``cleaned``, for those that declare one."""
        raise NotImplementedError(f"{type(self).__name__} declares no smooth stand-in")

    def followed(self, backward: Backward | None) -> Backward:
        """Return the backward pass to follow: this one, or the first if it does not declare it."""
        return backward if backward in self.backwards else self.backwards[0]


class DefendedModel(DrawingModule):
    """A classifier behind input defenses, in order: images (B, C, H, W) in [0, 1] to logits (B, K).

    Args:
        model: the classifier.
        defenses: the first one gets the image as it is.
        backward: the backward pass that gradients take through each defense that declares it; None:
            the first one that each declares.
    """

    def __init__(
        self,
        model: nn.Module,
        defenses: Sequence[InputDefense],
        backward: Backward | None = None,
    ) -> None:
        super().__init__()
        self.model, self.defenses, self.backward = model, tuple(defenses), backward

    def forward(self, x: Tensor) -> Tensor:
        noise = self.noise_of_pass(len(x), x.device)
        for place, defense in enumerate(self.defenses):
            context = DefenseContext(model=self.model, noise=noise.fork(f"defense {place}"))
            x = _PASSED[defense.followed(self.backward)](defense, x, context)
        logits: Tensor = self.model(x)
        return logits

    @property
    def head(self) -> nn.Module:
        """The layer whose input are the features: that of the classifier."""
        return last_layer(self.model)

    @property
    def backwards(self) -> tuple[Backward, ...]:
        """The backward passes that any of the defenses declares; the one followed comes first."""
        own = [defense.followed(self.backward) for defense in self.defenses]
        every = [each for defense in self.defenses for each in defense.backwards]
        return tuple(dict.fromkeys([*own, *every]))

    @property
    def randomised(self) -> bool:
        """True if one of the defenses draws random numbers."""
        return any(defense.randomised for defense in self.defenses)

    def around(self, model: nn.Module) -> "DefendedModel":
        """Return the same defenses in front of another classifier of the same kind."""
        return DefendedModel(model, self.defenses, self.backward).train(self.training)

    def going_back(self, backward: Backward) -> "DefendedModel | None":
        """Return the same model whose gradients take another way; None where it is the same way."""
        own, other = (
            [defense.followed(each) for defense in self.defenses]
            for each in (self.backward, backward)
        )
        if own == other:
            return None
        return DefendedModel(self.model, self.defenses, backward).train(self.training)


def _exact(defense: InputDefense, x: Tensor, context: DefenseContext) -> Tensor:
    return defense.cleaned(x, context)


def _straight_through(defense: InputDefense, x: Tensor, context: DefenseContext) -> Tensor:
    return swap_gradient(_values(defense, x, context), x)


def _smoothed(defense: InputDefense, x: Tensor, context: DefenseContext) -> Tensor:
    values = _values(defense, x, context)
    wanted = torch.is_grad_enabled() and x.requires_grad
    return swap_gradient(values, defense.smoothed(x, context)) if wanted else values


def _values(defense: InputDefense, x: Tensor, context: DefenseContext) -> Tensor:
    with torch.no_grad():
        return defense.cleaned(x.detach(), context)


_PASSED: Mapping[Backward, Callable[[InputDefense, Tensor, DefenseContext], Tensor]] = {
    "exact": _exact,
    "straight-through": _straight_through,
    "smoothed": _smoothed,
}


def defended_part(model: object) -> DefendedModel | None:
    """Return the part of a model that has input defenses; None where it has none."""
    modules: Iterator[nn.Module] = model.modules() if isinstance(model, nn.Module) else iter(())
    return next((each for each in modules if isinstance(each, DefendedModel)), None)


def with_backward(model: nn.Module, backward: Backward) -> nn.Module | None:
    """Return a model whose gradients take another declared way through its input defenses.

    Returns:
        None where it has no input defense, or where the gradient takes this way already.
    """
    part = defended_part(model)
    other = None if part is None else part.going_back(backward)
    if part is None or other is None or part is model:
        return other
    # Only what is around the defenses is copied; the classifier and its weights are shared.
    return copy.deepcopy(model, {id(part): other})
