"""Who decides: a float32 forward pass of the model as it is, on the image as it is stored.

Attacks and the fast models they search with only propose.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from robustbench_cli.core.errors import RunError, UserError
from robustbench_cli.core.losses import margin
from robustbench_cli.core.model_modes import evaluating
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.float32 import float32

CONFIRMATION_DRAWS = 10
"""Fresh draws that must all be wrong before an example counts as broken for good."""
VOTING_DRAWS = 100
"""Fresh draws over which a randomised model's accuracy is measured."""
MAX_NAMED = 3
"""Names in a message; of the others, how many there are."""


@contextmanager
def unchanged_model(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, weights frozen, float32 throughout, and nothing changed afterwards.

    Raises:
        RunError: the model changed its own parameters or buffers (running statistics that follow
            attacks).
    """
    wanted = [p.requires_grad for p in model.parameters()]
    # A copy, and not versions: running statistics and ``.data`` are written without one.
    before = {name: value.clone() for name, value in _values(model)}
    with evaluating(model), torch.autocast(device_of(model).type, enabled=False), float32():
        model.requires_grad_(False)
        try:
            yield
        finally:
            for p, flag in zip(model.parameters(), wanted, strict=True):
                p.requires_grad_(flag)
    changed = [name for name, now in _values(model) if not _same(before.get(name, now), now)]
    if changed:
        more = f" and {len(changed) - MAX_NAMED} more" if len(changed) > MAX_NAMED else ""
        raise RunError(
            f"the model changed its {', '.join(changed[:MAX_NAMED])}{more} while it was evaluated; "
            "it is not the same model from one image to the next"
        )


def _values(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """All that a model computes with, whether or not its state dict holds it."""
    yield from ((f"parameter {name!r}", p.detach()) for name, p in model.named_parameters())
    yield from ((f"buffer {name!r}", b) for name, b in model.named_buffers())


def _same(was: Tensor, now: Tensor) -> bool:
    """Whether two tensors hold the same; NaN is NaN."""
    alike = (was.shape, was.dtype, was.device) == (now.shape, now.dtype, now.device)
    if not alike or torch.equal(was, now):
        return alike
    return torch.allclose(was, now, rtol=0, atol=0, equal_nan=True)


def device_of(model: nn.Module) -> torch.device:
    """Where a model's weights are; the CPU if it has none."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def check_model(model: nn.Module, x: Tensor, classes: int, called: str = "the model") -> None:
    """Refuse a model that cannot be judged; raise ``UserError`` with what it returned.

    Args:
        x: a few images (B, C, H, W) in [0, 1].
        classes: how many classes the data set has.
        called: what the message calls it, where there are several.
    """
    with unchanged_model(model):
        try:
            logits = model(x.requires_grad_())
        except Exception as error:  # it may be the user's code: anything can come out of it
            first = (str(error).splitlines() or [""])[0]
            raise UserError(
                f"{called} cannot take images of shape {tuple(x.shape[1:])}: "
                f"{type(error).__name__}: {first}"
            ) from None
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x):
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UserError(f"{called} must return logits (B, {classes}), it returned {got}")
    if logits.shape[1] != classes:
        raise UserError(f"{called} returns {logits.shape[1]} classes, the data set has {classes}")
    if not logits.isfinite().all():
        raise UserError(f"{called} returns NaN or infinite logits on clean images")
    if not logits.requires_grad:
        raise UserError(
            f"the logits of {called} have no gradient with respect to the images (detached?); "
            "gradient attacks cannot work on it"
        )


def predict(model: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Logits (B, K); raise ``UserError`` if they are not finite."""
    with torch.no_grad():
        logits = model(x)
    # argmax of NaN is an index like any other and would count as a success.
    if not logits.isfinite().all():
        raise UserError("the model returned NaN or infinite logits; no verdict is possible")
    return logits


class Verdict(NamedTuple):
    """What the judge saw of some images, each tensor (B)."""

    prediction: Tensor
    """The predicted class; a randomised model's most frequent one."""
    share: Tensor
    """How often the prediction is right: 0 or 1, but for a randomised model."""
    broken: Tensor
    """Whether the example is done with: wrong, and at every draw if there are several."""
    margin: Tensor
    """Largest wrong logit minus the true one, at the first draw."""
    forwards: int
    """Passes per image."""


@dataclass(frozen=True)
class Verifier:
    """The deciding model.  It is told the threat with the images that it judges."""

    model: nn.Module
    random: bool = False
    """Whether the model is randomised, so that one pass decides nothing."""

    def logits(self, x: Tensor) -> Tensor:
        """One float32 pass, (B, K)."""
        return predict(self.model, x)

    def verdict(
        self, x_adv: Tensor, x: Tensor, y: Tensor, threat: Threat, *, bounded: bool = True
    ) -> Verdict:
        """Decide about images (B, C, H, W) as they are stored.

        Args:
            x_adv: what is judged, in [0, 1].
            x: the clean images.
            y: the labels (B).
            threat: with a mask, bound to these images.
            bounded: whether they must be in the ball; those of a minimal attack need not.

        Raises:
            UserError: the model's logits are not finite.
            RunError: images are not where they must be.
        """
        check_admissible(x_adv, x, threat, bounded=bounded)
        logits = self.logits(x_adv)
        if not self.random:
            prediction = logits.argmax(1)
            right = prediction == y
            return Verdict(prediction, right.float(), ~right, margin(logits, y), 1)
        votes = torch.zeros_like(logits, dtype=torch.long)
        every = torch.arange(len(x_adv), device=x_adv.device)
        for _ in range(VOTING_DRAWS):
            votes[every, self.logits(x_adv).argmax(1)] += 1
        share = votes[every, y].float() / VOTING_DRAWS
        # Never "any draw was wrong": that would count luck as an attack.
        return Verdict(
            votes.argmax(1), share, share < 1 / VOTING_DRAWS, margin(logits, y), VOTING_DRAWS + 1
        )

    def broken(self, x_adv: Tensor, y: Tensor) -> Tensor:
        """Whether a success is one for good: wrong, at every one of ``passes`` fresh draws."""
        wrong = torch.ones_like(y, dtype=torch.bool)
        for _ in range(self.passes):
            wrong &= self.logits(x_adv).argmax(1) != y
        return wrong

    @property
    def passes(self) -> int:
        """Forward passes per decision about a success."""
        return CONFIRMATION_DRAWS if self.random else 1


def check_admissible(x_adv: Tensor, x: Tensor, threat: Threat, *, bounded: bool) -> None:
    """Refuse images that the threat does not allow.

    Args:
        x_adv: images (B, C, H, W) of an attack.
        x: the clean images.
        threat: with a mask, bound to these images.
        bounded: whether they must be in the ball, too.

    Raises:
        RunError: a pixel is outside [0, 1] or NaN, a pixel changed that a mask holds fast, or an
            image is outside the ball.
    """
    if not bool(threat.untouched(x_adv, x).all()):
        raise RunError(f"the attack changed pixels that must stay ({threat})")
    box = (x_adv >= 0) & (x_adv <= 1)  # False for NaN, too
    if not bool(box.all()) or (bounded and not bool(threat.inside(x_adv, x).all())):
        raise RunError(f"the attack left the ball or the box, or made NaN pixels ({threat})")
