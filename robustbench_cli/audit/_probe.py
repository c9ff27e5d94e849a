"""What model checks look at: a model on a few images, each answer computed once."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from robustbench_cli.attacks import Stage
from robustbench_cli.audit._difference import NO_DIFFERENCE, largest_difference
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.gradient_ascent import Loss
from robustbench_cli.core.inner_autograd import runs_counted
from robustbench_cli.core.losses import lead, margin, wide
from robustbench_cli.core.threat import Threat, over
from robustbench_cli.evaluation.meter import Meter
from robustbench_cli.evaluation.out_of_memory import in_parts
from robustbench_cli.evaluation.verifier import device_of
from robustbench_cli.models.layout import laid_out
from robustbench_cli.models.rejecting import rejection_of, shown_logits

ROOM = 0.125
"""The distance of the random start from the border of [0, 1], as a part of eps."""
SEVERAL = 7
"""The size of the smaller batches: a number that no batch size is a multiple of."""
REPEATED = 2
"""How often one image is asked about again: a model may draw once for a whole batch."""

Copy = Callable[[], nn.Module | None]
"""Returns a copy of the model as it was before it was used, or None where it cannot be copied."""


class GradientAtStart(NamedTuple):
    """The model at a random start of each image, and the gradient of the margin there."""

    logits: Tensor
    """(m, K), as the model gives them where a gradient is wanted."""
    margin: Tensor
    """The gradient (m, C, H, W) of the margin; zero where no graph leads to the images."""


class LeadAtStart(NamedTuple):
    """How the strongest wrong class leads over the true one at a random start of each image."""

    strongest: Tensor
    """The wrong class with the largest logit (m); the rejection of an image is none."""
    logits: Tensor
    """(m, K), or (m, K + 1) of a model that rejects."""
    grad: Tensor
    """The gradient (m, C, H, W) of that class's logit less the true one's."""


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
    """The ball to look in; with a mask, bound to these images."""
    attacked: Threat
    """The threat of the attacks: the same one, where that is a ball."""
    noise: Noise
    """Keyed by example, m of them."""
    random: bool
    """True if the model's answers differ from pass to pass."""
    copy: Copy = lambda: None
    ends: Tensor | None = None
    """The images (m, C, H, W) that attacks ended with, once they have been run."""
    stages: Mapping[str, Sequence[Stage]]
    """The stages of each attack of the evaluation, by label; empty if another model is attacked."""
    differentiable: bool = True
    """True if a gradient passes through the model that is attacked."""

    transferred: bool = False
    """True if the images of the attacks are made for another model."""

    _copies: list[Meter] = field(default_factory=list)

    @cached_property
    def meter(self) -> Meter:
        """The model, with a count of the images that checks push through it."""
        return Meter(self.model)

    @property
    def cost(self) -> tuple[int, int]:
        """The images pushed forward and backward so far, through the model and its copies."""
        meters = [self.meter, *self._copies]
        return sum(m.forwards for m in meters), sum(m.backwards for m in meters)

    def metered_copy(self) -> Meter | None:
        """Return a fresh copy of the model whose passes count; None where it cannot be copied."""
        fresh = self.copy()
        if fresh is None:
            return None
        self._copies.append(Meter(fresh))
        return self._copies[-1]

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits (B, K) of images (B, C, H, W) in one batch, without a gradient."""
        return self._answers(self.meter, x)[0]

    def _answers(self, model: Meter, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits (B, K) of images, and which of these the model wrote into (B, bool)."""
        shown = x.clone()
        with torch.no_grad():
            logits = wide(in_parts(model, shown))
        return logits, (shown != x).flatten(1).any(1)

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
        return self._clean_pass[0]

    @property
    def autograd_runs(self) -> int:
        """How often autograd ran during the forward pass of the clean images."""
        return self._clean_pass[1]

    @cached_property
    def _clean_pass(self) -> tuple[Tensor, int]:
        with runs_counted() as runs:
            logits = self.logits(self.x)
        return logits, len(runs)

    @cached_property
    def right(self) -> Tensor:
        """True for images that are classified correctly when clean (m, bool)."""
        return self.clean.argmax(1) == self.y

    @cached_property
    def start(self) -> Tensor:
        """A random start in the ball of each image, or where its attack ended (m, C, H, W).

        It is moved off the border of [0, 1] by a little, so that every pixel can go either way.
        """
        start = self.ends
        if start is None:
            start = self.threat.random_start(self.x, self.noise.fork("start"))
        return self.off_border(start, self.pixel_step(ROOM))

    def pixel_step(self, distance: float) -> Tensor:
        """Return by how much every pixel changes over a part of eps (m, 1, 1, 1), at most 0.5."""
        unit = torch.ones_like(self.x)
        across = self.threat.distance(unit, torch.zeros_like(unit)).clamp_min(1e-12)
        return over((distance * self.threat.eps / across).clamp(max=0.5), self.x)

    def off_border(self, x: Tensor, step: Tensor) -> Tensor:
        """Return images (m, C, H, W) whose free pixels are at least a step away from 0 and 1."""
        inside = torch.maximum(torch.minimum(x, 1 - step), step)
        return torch.where(self.threat.allowed(torch.ones_like(x)) > 0, inside, x)

    @cached_property
    def at_start(self) -> GradientAtStart:
        """The logits at the random start, and the gradient of the margin there."""

        def attacked(logits: Tensor, y: Tensor) -> Tensor:
            return margin(shown_logits(self.model, logits, y), y)

        return GradientAtStart(*self.gradient(attacked, self.start, self.y))

    @cached_property
    def lead_at_start(self) -> LeadAtStart:
        """The lead of the strongest wrong class at the random start."""
        rejection = rejection_of(self.model)
        logits, grad = self.at_start
        classes = logits if rejection is None else logits[:, :-1]
        strongest = classes.scatter(1, self.y[:, None], float("-inf")).argmax(1)
        if rejection is not None:  # the margin there is of other logits
            pairs = torch.stack([self.y, strongest], 1)
            logits, grad = self.gradient(lambda z, y: lead(z, *y.unbind(1)), self.start, pairs)
        return LeadAtStart(strongest, logits, grad)

    @cached_property
    def start_logits(self) -> Tensor:
        """The logits (m, K) at the random start, in one batch, where no gradient is wanted."""
        return self.logits(self.start)

    @cached_property
    def near(self) -> Tensor:
        """Images (m, C, H, W) a tenth of the way to the start, and corners of the ball, in turn."""
        slope = self.noise.fork("corner").normal(self.x)
        tenth = self.x + 0.1 * (self.start - self.x)
        even = over(torch.arange(len(self.x), device=self.x.device) % 2 == 0, self.x)
        return torch.where(even, tenth, self.threat.corner(self.x, slope))

    @property
    def near_logits(self) -> Tensor:
        """The logits (m, K) of the near images, of the model that was shown the others before."""
        return self._near_pass[0]

    @property
    def overwritten(self) -> Tensor:
        """True for the near images that the model wrote into when it was shown them (m, bool)."""
        return self._near_pass[1]

    @cached_property
    def _near_pass(self) -> tuple[Tensor, Tensor]:
        _ = self.clean, self.at_start
        return self._answers(self.meter, self.near)

    @cached_property
    def steady(self) -> bool:
        """True if a fresh copy, shown the images in small batches, gives the model's own answers.

        Then the model is neither random nor coupled within a batch, it does not remember, and a
        wanted gradient changes nothing: each of these would make two of the answers differ.  Which
        of them it is where they do is left to the checks.
        """
        # The model itself, where there is no copy: its memory is then not tested.
        fresh = self.metered_copy() or self.meter
        pairs = [(self.near_logits, self.near), (self.at_start.logits, self.start)]
        first = [(self.at_start.logits[:1], self.start[:1])] * REPEATED
        try:
            for known, images in [*pairs, *first]:
                parts = torch.split(images, _part_sizes(len(images)))
                answers = torch.cat([self._answers(fresh, part)[0] for part in parts])
                if bool((largest_difference(known, answers) > NO_DIFFERENCE).any()):
                    return False
        except Exception:  # the model's own code, which may refuse an image alone
            return False
        return True


def _part_sizes(images: int) -> list[int]:
    """Return the sizes of batches for so many images: one and seven, in turn."""
    sizes: list[int] = []
    while (left := images - sum(sizes)) > 0:
        sizes.append(min(left, SEVERAL if len(sizes) % 2 else 1))
    return sizes


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
