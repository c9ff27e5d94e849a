"""Train one model with one recipe, an epoch at a time."""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from robustbench_cli import masks
from robustbench_cli.attacks.pgd import PGD
from robustbench_cli.config.schema import Training
from robustbench_cli.core.errors import RunError, UserError
from robustbench_cli.core.example_rng import Noise, stream_generator, stream_key
from robustbench_cli.core.model_modes import evaluating
from robustbench_cli.core.threat import Threat
from robustbench_cli.data import Dataset, Split
from robustbench_cli.data.bank import Bank
from robustbench_cli.data.pool import Pool
from robustbench_cli.defenses import Recipe
from robustbench_cli.defenses._step import SCORED, Step, Trained
from robustbench_cli.distributed.group import ALONE, Shard
from robustbench_cli.evaluation.stages import attack_batch
from robustbench_cli.masks import Sight
from robustbench_cli.models import Classifier
from robustbench_cli.optim import Schedule

HistoryRow = dict[str, float | int | None]
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
    pool: Pool | None = None
    """Extra images, on the device, too."""
    teachers: tuple[Classifier, ...] = ()
    auxiliaries: nn.ModuleDict = field(default_factory=nn.ModuleDict)
    """What the recipe's parts made for themselves; saved and restored with the run."""
    held_out: Split | None = None
    """What selection looks at: the validation split, or the test set under the rule oracle."""
    held_out_is: str = "val"
    """How the history calls it: ``val``, or ``test`` where selection is an oracle."""
    seed: int = 0
    shard: Shard = ALONE
    """Which of the processes is this: all make the same updates, each from its own rows."""

    def __post_init__(self) -> None:
        self.bank = Bank(self.pool.data if self.pool and self.pool.alone else self.data)

    def epoch(self, epoch: int, on_batch: Callable[[Watch], None] = lambda _: None) -> HistoryRow:
        """Train through the data once and measure; ``epoch`` counts from 0.

        Raises:
            RunError: the loss, a weight, or what the model then answers is not finite.
        """
        began = time.perf_counter()
        # Dropout draws from torch's own generators: restart them where this epoch begins.
        torch.manual_seed(stream_key(self.seed, "epoch", epoch))
        batches = self._batches(epoch)
        turns = self.recipe.objective.updates_per_batch
        losses = torch.zeros((), device=self.data.y.device, dtype=torch.float64)
        tally = _Tally(losses, world=self.shard.world)
        self.model.train()
        for index, rows in enumerate(batches):
            batch = self._assembled(rows, epoch, index)
            for update_index in range(turns):
                t = (epoch + (index + update_index / turns) / len(batches)) / self.options.epochs
                step = replace(batch, threat=self._threat(t), update_index=update_index)
                tally.add(self._update(step, t), batch.y)
            if index % CHECK_EVERY == CHECK_EVERY - 1:
                self._finite(tally.losses, epoch, index)
            on_batch(tally.watch(index + 1, len(batches)))
        tally.join(self.shard)
        self._finite(tally.losses, epoch, len(batches) - 1)
        row: HistoryRow = {
            "epoch": epoch + 1,
            "lr": self.optimizer.param_groups[0]["lr"],
            "loss": tally.loss(),
            **{f"batch_{name}": tally.accuracy(name) for name in SCORED},
        }
        row["train_seconds"] = time.perf_counter() - began
        probe = self.data.only(slice(self.options.probe)) if self.options.probe else None
        name = self.held_out_is
        with self.swap_in_eval_weights():
            row["train_clean"], row["train_robust"] = self._measure(probe, epoch)
            held_out = self._measure(self.held_out, epoch)
            row[f"{name}_clean"], row[f"{name}_robust"] = held_out
            self._usable(epoch)
        row["seconds"] = time.perf_counter() - began
        return row

    def agree(self) -> None:
        """Give all processes the first one's weights."""
        mine = (*self.model.state_dict().values(), *self.auxiliaries.state_dict().values())
        self.shard.broadcast_(mine)

    def swap_in_eval_weights(self) -> AbstractContextManager[None]:
        """The model with the weights that are measured and saved."""
        return self.recipe.swap_in_eval_weights(self.model, self.auxiliaries)

    def _batches(self, epoch: int) -> list[Tensor]:
        """Which labelled examples go into each batch of an epoch."""
        size = self.options.batch_size
        order = torch.randperm(
            len(self.data), generator=stream_generator(self.seed, "order", epoch)
        )
        if self.pool and self.pool.alone:  # as many as its images would fill, none of them there
            return [order[:0] for _ in torch.split(order, size)]
        batches = list(torch.split(order, self.pool.room(size) if self.pool else size))
        # A single leftover image has no batch statistics; a pool fills its batch up.
        return batches[:-1] if len(batches[-1]) == 1 and not self.pool else batches

    def _assembled(self, rows: Tensor, epoch: int, index: int) -> Step:
        """A batch as the recipe gets it."""
        device = self.data.y.device
        ids = rows = rows.to(device)
        x, y, extra = self.data.images(rows), self.data.y[rows], None
        if self.pool:
            count = self.options.batch_size - len(rows)
            more = self.pool.draw(count, self.seed, epoch, index).to(device)
            ids = torch.cat([rows, self.pool.first + more])
            x = torch.cat([x, self.pool.data.images(more)])
            y = torch.cat([y, self.pool.data.y[more]])
            extra = None if self.pool.alone else ids >= self.pool.first
        noise = Noise(self.seed, ids, f"epoch {epoch}")
        return Step(
            model=self.model,
            x=self.dataset.augmented(x, noise).contiguous(memory_format=torch.channels_last),
            y=y,
            classes=len(self.data.classes),
            threat=self.threat,
            noise=noise,
            epoch=epoch,
            batch=index,
            extra=extra,
            teachers=self.teachers,
            bank=self.bank,
            auxiliaries=dict(self.auxiliaries.items()),
            shard=self.shard,
        )

    def _update(self, step: Step, t: float) -> Trained:
        factor = self.schedule(t, began=step.epoch / self.options.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = group.get("peak", self.options.lr) * factor
        self.optimizer.zero_grad(set_to_none=True)
        with ExitStack() as moved:
            trained = self.recipe.backward(step, moved)
            self.optimizer.step()
        self.recipe.after_optimizer_step(step)
        return trained

    def _threat(self, t: float) -> Threat:
        warmup = self.options.eps_warmup
        if t >= warmup:
            return self.threat
        return replace(self.threat, eps=self.threat.eps * max(t / warmup, 1e-3))

    def _finite(self, losses: Tensor, epoch: int, batch: int) -> None:
        if not math.isfinite(float(losses)):
            what = f"the training loss is not finite in epoch {epoch + 1}, by batch {batch + 1}"
            raise _diverged(what, epoch)

    def _usable(self, epoch: int) -> None:
        """Nothing else may look at the model before it is saved: the last update can ruin it."""
        # Weights of 1e30 are finite, and yet no logit is.
        with evaluating(self.model), torch.no_grad():
            logits = self.model(self.data.images(slice(1)))
        # Buffers that training does not move may hold what they like: a mask of -inf.
        norms = [m for m in self.model.modules() if isinstance(m, _NormBase)]
        statistics = [each for norm in norms for each in norm.buffers(recurse=False)]
        looked_at = (logits, *self.model.parameters(), *statistics)
        ruined = torch.stack([~t.isfinite().all() for t in looked_at]).sum()
        self.shard.all_reduce_sum_([ruined])
        if int(ruined):
            what = f"the model's weights or logits are not finite after epoch {epoch + 1}"
            raise _diverged(what, epoch)

    def _measure(self, split: Split | None, epoch: int) -> tuple[float | None, float | None]:
        """Clean and PGD-10 accuracy in evaluation mode."""
        if not split:
            return None, None
        try:
            return accuracies(self.model, split, self.threat, self.seed, shard=self.shard)
        except UserError as error:  # not the user's model: training made it what it is
            raise _diverged(f"after epoch {epoch + 1} {error}", epoch) from None


def _diverged(what: str, epoch: int) -> RunError:
    kept = "the last finished epoch is kept" if epoch else "nothing is kept"
    return RunError(f"{what}; {kept}; try a smaller --lr")


def accuracies(
    model: Classifier,
    split: Split,
    threat: Threat,
    seed: int,
    batch_size: int = 512,
    shard: Shard = ALONE,
) -> tuple[float, float]:
    """Clean and PGD-10 accuracy of a model in training, measured in evaluation mode."""
    mine = torch.arange(len(split), device=split.y.device)[shard.rows]
    counts = torch.zeros(2, dtype=torch.long, device=split.y.device)
    narrow, model.low_precision = model.low_precision, False  # what selects must be float32
    with evaluating(model):
        for rows in torch.split(mine, batch_size) if len(mine) else ():
            x, y = split.images(rows), split.y[rows]
            with torch.no_grad():
                right = model(x).argmax(1) == y
            noise = Noise(seed, rows[right], "measure")
            here = masks.bind_to_images(threat, Sight(model=model, x=x[right], y=y[right]))
            found = attack_batch(model, x[right], y[right], PROBE, here, noise)
            counts += torch.stack([right.sum(), (~found.broken).sum().to(right.device)])
    model.low_precision = narrow
    shard.all_reduce_sum_([counts])
    clean, robust = counts.tolist()
    return clean / len(split), robust / len(split)


@dataclass
class _Tally:
    """Sums over an epoch, on the device: reading one waits for it."""

    losses: Tensor
    world: int = 1
    """How many processes have equal parts of the sums; each sees its own until they ``join``."""
    done: int = 0
    labelled: Tensor | int = 0
    correct: dict[str, Tensor] = field(default_factory=dict)

    def add(self, trained: Trained, y: Tensor) -> None:
        """One update on examples with these labels."""
        self.done += len(y)
        self.losses += trained.loss.double() * len(y)
        self.labelled = (y >= 0).sum() + self.labelled
        for name, right in trained.correct.items():
            self.correct[name] = self.correct.get(name, torch.zeros_like(right)) + right

    def loss(self) -> float:
        """The mean over examples."""
        return self.world * float(self.losses) / self.done

    def accuracy(self, name: str) -> float | None:
        """The share of labelled examples that a pass got right; None for one nobody made."""
        right = self.correct.get(name)
        if right is None:
            return None
        return self.world * float(right) / max(1, int(self.labelled))

    def join(self, shard: Shard) -> None:
        """From here on the sums are everyone's."""
        self.correct = {name: right.double() for name, right in self.correct.items()}
        shard.all_reduce_sum_([self.losses, *self.correct.values()])
        self.world = 1

    def watch(self, batch: int, batches: int) -> Watch:
        """What a display may ask for now."""
        return Watch(batch=batch, batches=batches, loss=self.loss, accuracy=self.accuracy)
