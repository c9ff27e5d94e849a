"""Judge a model under attacks: one verdict per example, batch after batch.

Attacks propose; this file decides.  What counts is a float32 forward pass of the image as it is
stored, inside the ball and the box.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustbench_cli.attacks import Attack
from robustbench_cli.data import Split
from robustbench_cli.errors import RunError, UserError
from robustbench_cli.modes import evaluating
from robustbench_cli.noise import Noise
from robustbench_cli.threat import Threat


class Meter:
    """A model that counts the images pushed through it, forward and backward."""

    def __init__(self, model: Callable[[Tensor], Tensor]) -> None:
        self.forwards = 0
        self.backwards = 0
        self._model = model

    def __call__(self, x: Tensor) -> Tensor:
        logits = self._model(x)
        self.forwards += len(x)
        if logits.requires_grad:
            logits.register_hook(lambda _: self._count(len(x)))  # type: ignore[no-untyped-call]
        return logits

    def _count(self, images: int) -> None:
        self.backwards += images


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """What became of a batch of examples, each tensor (B) on the CPU."""

    prediction: Tensor
    """The class the model gives to the stored image."""
    norm: Tensor
    """How far it went; 0 where nothing was tried because the clean image is wrong already."""
    step: Tensor
    """Gradient steps until the first misclassification; -1: never, or not known."""
    forwards: int
    backwards: int
    seconds: float


@contextmanager
def judging(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, weights frozen, float32 throughout, and nothing changed afterwards."""
    wanted = [p.requires_grad for p in model.parameters()]
    tf32 = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    with evaluating(model), torch.autocast(_device(model).type, enabled=False):
        model.requires_grad_(False)
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        try:
            yield
        finally:
            torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = tf32
            for p, flag in zip(model.parameters(), wanted, strict=True):
                p.requires_grad_(flag)


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def examine(model: nn.Module, x: Tensor, classes: int) -> None:
    """Refuse a model that cannot be judged; raise ``UserError`` with what it returned.

    Args:
        x: a few images (B, C, H, W) in [0, 1].
        classes: how many classes the data set has.
    """
    with judging(model):
        try:
            logits = model(x.requires_grad_())
        except Exception as error:  # it may be the user's code: anything can come out of it
            first = (str(error).splitlines() or [""])[0]
            raise UserError(
                f"the model cannot take images of shape {tuple(x.shape[1:])}: "
                f"{type(error).__name__}: {first}"
            ) from None
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x):
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UserError(f"the model must return logits (B, {classes}), it returned {got}")
    if logits.shape[1] != classes:
        raise UserError(f"the model returns {logits.shape[1]} classes, the data set has {classes}")
    if not logits.isfinite().all():
        raise UserError("the model returns NaN or infinite logits on clean images")
    if not logits.requires_grad:
        raise UserError(
            "the model's logits have no gradient with respect to the images (detached?); "
            "gradient attacks cannot work on it"
        )


def predict(model: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Classes (B) for images; raise ``RunError`` on logits that are not finite."""
    with torch.no_grad():
        logits = model(x)
    # argmax of NaN is an index like any other and would count as a success.
    if not logits.isfinite().all():
        raise RunError("the model returned NaN or infinite logits; no verdict is possible")
    return logits.argmax(1)


def craft(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    standing: Tensor,
    attack: Attack,
    threat: Threat,
    noise: Noise,
) -> tuple[Tensor, Tensor]:
    """Images inside the threat, float32 as stored, and first success steps.

    Only ``standing`` examples (a mask) are attacked; the others come back as they are.
    """
    x_adv, step = x.clone(), torch.full_like(y, -1)
    if standing.any():
        found = attack(model, x[standing], y[standing], threat, noise.only(standing))
        x_adv[standing] = threat.project(found.x.detach().float(), x[standing])
        step[standing] = found.step
    if not threat.inside(x_adv, x).all():
        raise RunError(f"the attack left the ball or the box, or made NaN pixels ({threat})")
    return x_adv, step


def evaluate(
    model: nn.Module,
    data: Split,
    attack: Attack | None,
    threat: Threat,
    *,
    noise: Noise,
    clean: Tensor | None,
    batches: list[slice],
) -> Iterator[tuple[slice, Verdicts]]:
    """Verdicts for each batch, as soon as it is judged.

    Args:
        data: all examples, on the model's device.
        attack: None for the clean predictions.
        noise: the source for all examples, forked for this attack.
        clean: predicted classes (N) on clean images; None while they are being made.
        batches: which examples to judge, in this order.
    """
    for rows in batches:
        began, meter = time.perf_counter(), Meter(model)
        with judging(model):
            x, y = data.images(rows), data.y[rows]
            step = torch.full_like(y, -1)
            x_adv = x
            if attack is not None and clean is not None:
                standing = clean[rows].to(y.device) == y
                x_adv, step = craft(meter, x, y, standing, attack, threat, noise.only(rows))
            prediction = predict(meter, x_adv)
        # A step that a float32 look at the stored image does not confirm is no success.
        step = torch.where(prediction != y, step, -1)
        yield (
            rows,
            Verdicts(
                prediction=prediction.cpu(),
                norm=threat.distance(x_adv, x).cpu(),
                step=step.cpu(),
                forwards=meter.forwards,
                backwards=meter.backwards,
                seconds=time.perf_counter() - began,
            ),
        )
