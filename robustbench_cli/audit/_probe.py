"""What model checks look at: a model on a few images, each answer computed once."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from robustbench_cli.attacks import Stage
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.gradient_ascent import Loss
from robustbench_cli.core.inner_autograd import runs_counted
from robustbench_cli.core.losses import cross_entropy, margin, wide
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.meter import Meter
from robustbench_cli.evaluation.out_of_memory import in_parts
from robustbench_cli.evaluation.verifier import device_of
from robustbench_cli.models.layout import laid_out
from robustbench_cli.models.rejecting import rejection_of, shown_logits

Copy = Callable[[], nn.Module | None]
"""Returns a copy of the model as it was before it was used, or None where it cannot be copied."""


class GradientsAtStart(NamedTuple):
    """The model at a random start of each image, and the gradients of two losses there."""

    x: Tensor
    """The starts (m, C, H, W) in [0, 1]."""
    logits: Tensor
    """(m, K)."""
    cross_entropy: Tensor
    """The gradient (m, C, H, W) of the cross-entropy; zero where no graph leads to the images."""
    margin: Tensor
    """The gradient (m, C, H, W) of the margin."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A model in evaluation mode, on m images; checks share the answers.

    The model is called in the order in which checks ask, so a model with a memory may answer later
    ones differently: this is what the check of the memory looks for.
    """

    model: nn.Module
    x: Tensor
    """Clean images (m, C, H, W) in [0, 1]."""
    y: Tensor
    """Labels (m)."""
    threat: Threat
    """With a mask, bound to these images."""
    noise: Noise
    """Keyed by example, m of them."""
    random: bool
    """True if the model's answers differ from pass to pass."""
    copy: Copy = lambda: None
    ends: Tensor | None = None
    """The images (m, C, H, W) that attacks ended with, once they have been run."""
    stages: Mapping[str, Sequence[Stage]]
    """The stages of each attack of the evaluation, by label; empty if another model is attacked."""

    @cached_property
    def meter(self) -> Meter:
        """The model, with a count of the images that checks push through it."""
        return Meter(self.model)

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits (B, K) of images (B, C, H, W) in one batch, without a gradient."""
        with torch.no_grad():
            return wide(in_parts(self.meter, x))

    def gradient(self, loss: Loss, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits (B, K) and the gradient (B, C, H, W) of a loss at images (B, C, H, W).

        The gradient is zero where no graph leads to the images.
        """

        return gradient_in_parts(self.meter, loss, x, y)

    def class_logits(self, x: Tensor) -> Tensor:
        """Return the logits (B, K) of the classes alone, without that of a rejection."""
        logits = self.logits(x)
        return logits if rejection_of(self.model) is None else logits[:, :-1]

    @cached_property
    def clean(self) -> Tensor:
        """The logits (m, K) of the clean images, in one batch."""
        return self.logits(self.x)

    @cached_property
    def right(self) -> Tensor:
        """True for images that are classified correctly when clean (m, bool)."""
        return self.clean.argmax(1) == self.y

    @cached_property
    def start(self) -> Tensor:
        """A random start in the ball of each image, or where its attack ended (m, C, H, W)."""
        if self.ends is not None:
            return self.ends
        return self.threat.random_start(self.x, self.noise.fork("start"))

    @cached_property
    def at_start(self) -> GradientsAtStart:
        """The logits at the random start, and the gradients of cross-entropy and margin there."""

        def attacked(loss: Loss) -> Loss:
            return lambda logits, y: loss(shown_logits(self.model, logits, y), y)

        logits, first = self.gradient(attacked(cross_entropy), self.start, self.y)
        _, second = self.gradient(attacked(margin), self.start, self.y)
        return GradientsAtStart(self.start, logits, first, second)

    @cached_property
    def autograd_runs(self) -> int:
        """How often autograd ran during one forward pass without a gradient."""
        with runs_counted() as runs:
            self.logits(self.x)
        return len(runs)


def gradient_in_parts(
    model: Callable[[Tensor], Tensor], loss: Loss, x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor]:
    """Return logits (B, K) and the gradient (B, C, H, W) of a loss, in batches that fit the memory.

    The gradient is zero where no graph leads to the images.
    """

    def both(rows: Tensor) -> Tensor:
        leaf = x[rows].detach().requires_grad_()
        with torch.enable_grad():
            logits = wide(model(leaf))
            total = loss(logits, y[rows]).sum()
            grad = None
            if total.requires_grad:
                (grad,) = torch.autograd.grad(total, leaf, allow_unused=True)
        grad = torch.zeros_like(leaf) if grad is None else grad
        return torch.cat([logits.detach(), grad.flatten(1).to(logits)], 1)

    found = in_parts(both, torch.arange(len(x), device=x.device))
    classes = found.shape[1] - x[0].numel()
    return found[:, :classes], found[:, classes:].view_as(x)


def copier(model: nn.Module, rebuild: Callable[[], nn.Module] | None = None) -> Copy:
    """Return a function that gives copies of a model as it is now, in evaluation mode.

    Args:
        rebuild: makes the model anew, where that is possible: a copy in memory shares what a model
            keeps outside of itself, in a global or in a closure.
    """
    try:
        pristine = copy.deepcopy(model)
    except Exception:  # the model is the user's: its parts may refuse to be copied
        pristine = None

    def fresh() -> nn.Module | None:
        made = rebuild() if rebuild is not None else copy.deepcopy(pristine)
        return None if made is None else laid_out(made, device_of(model)).eval()

    return fresh
