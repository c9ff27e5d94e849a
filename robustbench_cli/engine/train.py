"""Train one model with one recipe, an epoch at a time."""

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustbench_cli.attacks.pgd import PGD
from robustbench_cli.config import Training
from robustbench_cli.data import Dataset, Split
from robustbench_cli.defenses import Recipe, Step, Trained
from robustbench_cli.engine.evaluate import attacked
from robustbench_cli.errors import RunError
from robustbench_cli.models import Classifier
from robustbench_cli.modes import evaluating
from robustbench_cli.noise import Noise, generator, key
from robustbench_cli.optim import Schedule
from robustbench_cli.threat import Threat

Row = dict[str, float | int | None]
"""One epoch of a run's history."""

PROBE = PGD(steps=10, step=0.25)
"""The attack behind the robust accuracies of a history: PGD-10, any iterate."""

CHECK_EVERY = 50
"""Batches between looks at the loss for NaN; each look waits for the device."""


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What a progress display may ask for while an epoch runs; asking waits for the device."""

    batch: int
    batches: int
    loss: Callable[[], float]
    accuracy: Callable[[str], float | None]
    """Of the pass ``clean`` or ``adv`` so far in this epoch, where the objective makes it."""


@dataclass(kw_only=True)
class Trainer:
    """A model in training: one call to :meth:`epoch` per epoch, in any process that resumes it.

    Every random draw is keyed by the seed and the epoch, so a resumed run repeats the
    uninterrupted one bit for bit (on the same device and software).
    """

    model: Classifier
    recipe: Recipe
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    threat: Threat
    options: Training
    dataset: Dataset
    data: Split
    """Training images on the device, the held-out ones excluded."""
    held_out: Split | None = None
    """What selection looks at: the validation split, or the test set under the rule oracle."""
    held_out_is: str = "val"
    """How the history calls it: ``val``, or ``test`` where selection is an oracle."""
    seed: int = 0

    def epoch(self, epoch: int, on_batch: Callable[[Watch], None] = lambda _: None) -> Row:
        """Train through the data once and measure; ``epoch`` counts from 0.

        Raises:
            RunError: the loss is not finite.
        """
        began = time.perf_counter()
        # Dropout draws from torch's own generators: restart them where this epoch begins.
        torch.manual_seed(key(self.seed, "epoch", epoch))
        order = torch.randperm(len(self.data), generator=generator(self.seed, "order", epoch))
        batches = list(torch.split(order, self.options.batch_size))
        if len(batches[-1]) == 1:  # a single leftover image has no batch statistics
            batches.pop()
        device = self.data.y.device
        losses = torch.zeros((), device=device, dtype=torch.float64)
        correct: dict[str, Tensor] = {}
        done = 0
        self.model.train()
        for index, rows in enumerate(batches):
            t = (epoch + index / len(batches)) / self.options.epochs
            trained = self._batch(rows.to(device), epoch, t)
            done += len(rows)
            losses += trained.loss.double() * len(rows)
            for name, right in trained.correct.items():
                correct[name] = correct.get(name, torch.zeros_like(right)) + right
            if index % CHECK_EVERY == CHECK_EVERY - 1:
                self._finite(losses, epoch, index)
            on_batch(_watch(index + 1, len(batches), losses, correct, done))
        self._finite(losses, epoch, len(batches) - 1)
        row: Row = {
            "epoch": epoch + 1,
            "lr": self.optimizer.param_groups[0]["lr"],
            "loss": float(losses) / done,
            "batch_clean": int(correct["clean"]) / done if "clean" in correct else None,
            "batch_adv": int(correct["adv"]) / done if "adv" in correct else None,
        }
        row["train_seconds"] = time.perf_counter() - began
        probe = self.data.only(slice(self.options.probe)) if self.options.probe else None
        row["train_clean"], row["train_robust"] = self._measure(probe)
        name = self.held_out_is
        row[f"{name}_clean"], row[f"{name}_robust"] = self._measure(self.held_out)
        row["seconds"] = time.perf_counter() - began
        return row

    def _batch(self, rows: Tensor, epoch: int, t: float) -> Trained:
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.lr * self.schedule(t)
        noise = Noise(self.seed, rows, f"epoch {epoch}")
        x = self.dataset.augmented(self.data.images(rows), noise)
        step = Step(
            model=self.model,
            x=x.contiguous(memory_format=torch.channels_last),
            y=self.data.y[rows],
            threat=self._threat(t),
            noise=noise,
            epoch=epoch,
        )
        self.optimizer.zero_grad(set_to_none=True)
        with ExitStack() as moved:
            trained = self.recipe.backward(step, moved)
            self.optimizer.step()
        return trained

    def _threat(self, t: float) -> Threat:
        warmup = self.options.eps_warmup
        if t >= warmup:
            return self.threat
        return replace(self.threat, eps=self.threat.eps * max(t / warmup, 1e-3))

    def _finite(self, losses: Tensor, epoch: int, batch: int) -> None:
        if not math.isfinite(float(losses)):
            raise RunError(
                f"the training loss is not finite in epoch {epoch + 1}, by batch {batch + 1}; the "
                "last finished epoch is kept; try a smaller --lr"
            )

    def _measure(self, split: Split | None) -> tuple[float | None, float | None]:
        """Clean and PGD-10 accuracy in evaluation mode."""
        return accuracies(self.model, split, self.threat, self.seed) if split else (None, None)


def accuracies(
    model: Classifier, split: Split, threat: Threat, seed: int, batch_size: int = 512
) -> tuple[float, float]:
    """Clean and PGD-10 accuracy of a model in training, measured in evaluation mode."""
    clean = robust = 0
    narrow, model.low_precision = model.low_precision, False  # what selects must be float32
    with evaluating(model):
        for rows in torch.split(torch.arange(len(split), device=split.y.device), batch_size):
            x, y = split.images(rows), split.y[rows]
            with torch.no_grad():
                right = model(x).argmax(1) == y
            noise = Noise(seed, rows[right], "measure")
            found = attacked(model, x[right], y[right], PROBE, threat, noise)
            clean += int(right.sum())
            robust += int((~found.broken).sum())
    model.low_precision = narrow
    return clean / len(split), robust / len(split)


def _watch(
    batch: int, batches: int, losses: Tensor, correct: dict[str, Tensor], done: int
) -> Watch:
    return Watch(
        batch=batch,
        batches=batches,
        loss=lambda: float(losses) / done,
        accuracy=lambda name: int(correct[name]) / done if name in correct else None,
    )
