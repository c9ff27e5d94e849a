"""Training: one model, one recipe, an epoch at a time."""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from robustbench_cli.config.schema import Training
from robustbench_cli.core.errors import RunError, UserError
from robustbench_cli.core.example_rng import Noise, stream_generator, stream_key
from robustbench_cli.core.model_modes import evaluating
from robustbench_cli.core.threat import Threat
from robustbench_cli.core.transfer import sent
from robustbench_cli.data import Dataset, Split
from robustbench_cli.data.bank import Bank
from robustbench_cli.data.pool import Pool
from robustbench_cli.defenses import Recipe
from robustbench_cli.defenses._step import SCORED, Step, Trained
from robustbench_cli.distributed.group import ALONE, Shard
from robustbench_cli.models import Classifier
from robustbench_cli.optim import Schedule
from robustbench_cli.training.epoch_sums import EpochSums
from robustbench_cli.training.measure import accuracies

HistoryRow = dict[str, float | int | None]
"""One epoch of a run's history: losses and accuracies by name."""

CHECK_EVERY = 50
"""Batches between two checks that the loss is finite; each check waits for the device."""


@dataclass(frozen=True, kw_only=True)
class Watch:
    """The state of a running epoch, for a progress display; asking waits for the device."""

    batch: int
    """The batches done so far in this epoch."""
    batches: int
    """The batches of the epoch."""
    loss: Callable[[], float]
    """Returns the mean loss so far in this epoch."""
    accuracy: Callable[[str], float | None]
    """Returns the accuracy so far of the pass ``clean`` or ``adv``; None if the objective does not
    make the pass."""


@dataclass(kw_only=True)
class Trainer:
    """A model in training: one call of :meth:`epoch` per epoch.

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
    """Training images on the device, without the held-out ones."""
    pool: Pool | None = None
    """Extra images, on the device, too."""
    teachers: tuple[Classifier, ...] = ()
    """Frozen networks in evaluation mode, as many as the objective asks for."""
    auxiliaries: nn.ModuleDict = field(default_factory=nn.ModuleDict)
    """The auxiliary modules of the recipe's parts; saved and restored with the run."""
    held_out: Split | None = None
    """The images that selection measures on: the validation split, or the test set under the rule
    oracle."""
    held_out_is: str = "val"
    """The name of ``held_out`` in the history: ``val``, or ``test`` where selection is an
    oracle."""
    seed: int = 0
    shard: Shard = ALONE
    """This process among those that share the training: all make the same updates, each from its
    own rows."""

    def __post_init__(self) -> None:
        self.bank = Bank(self.pool.data if self.pool and self.pool.replaces_data else self.data)

    def agree(self) -> None:
        """Give all processes the weights of the first one."""
        tensors = (*self.model.state_dict().values(), *self.auxiliaries.state_dict().values())
        self.shard.broadcast_(tensors)

    def epoch(self, epoch: int, on_batch: Callable[[Watch], None] = lambda _: None) -> HistoryRow:
        """Train once through the data and measure; ``epoch`` counts from 0.

        Raises:
            RunError: the loss, a weight, or a logit of the trained model is not finite.
        """
        began, worked = time.perf_counter(), time.process_time()
        # Dropout draws from torch's own generators: seed them where this epoch begins.
        torch.manual_seed(stream_key(self.seed, "epoch", epoch))
        sums = self._train(epoch, on_batch)
        row: HistoryRow = {
            "epoch": epoch + 1,
            "lr": self.optimizer.param_groups[0]["lr"],
            "loss": sums.loss(),
            **{f"batch_{name}": sums.accuracy(name) for name in SCORED},
        }
        row["train_seconds"] = time.perf_counter() - began
        probe = self.data.only(slice(self.options.probe)) if self.options.probe else None
        name = self.held_out_is
        with self.swap_in_eval_weights():
            row["train_clean"], row["train_robust"] = self._measure(probe, epoch)
            row[f"{name}_clean"], row[f"{name}_robust"] = self._measure(self.held_out, epoch)
            self._check_model(epoch)
        row["cpu_seconds"] = sum(self.shard.all_gather(time.process_time() - worked))
        row["seconds"] = time.perf_counter() - began
        return row

    def _train(self, epoch: int, on_batch: Callable[[Watch], None]) -> EpochSums:
        """Make the updates of one epoch."""
        batches = self._batches(epoch)
        updates = self.recipe.objective.updates_per_batch
        losses = torch.zeros((), device=self.data.y.device, dtype=torch.float64)
        sums = EpochSums(losses, world=self.shard.world)
        self.model.train()
        if batches:
            self.data.expect(torch.cat(batches))
        for index, rows in enumerate(batches):
            batch = self._assemble(rows, epoch, index)
            for update_index in range(updates):
                batches_done = index + update_index / updates
                progress = (epoch + batches_done / len(batches)) / self.options.epochs
                threat = self._threat_at(progress)
                step = replace(batch, threat=threat, progress=progress, update_index=update_index)
                sums.add(self._update(step), batch.y)
            if index % CHECK_EVERY == CHECK_EVERY - 1:
                _check_loss(sums.losses, epoch, index)
            on_batch(
                Watch(
                    batch=index + 1,
                    batches=len(batches),
                    loss=sums.loss,
                    accuracy=sums.accuracy,
                )
            )
        sums.combine(self.shard)
        _check_loss(sums.losses, epoch, len(batches) - 1)
        return sums

    def _batches(self, epoch: int) -> list[Tensor]:
        """The positions of the labelled examples in each batch of an epoch (B each, int64)."""
        size = self.options.batch_size
        order = torch.randperm(
            len(self.data), generator=stream_generator(self.seed, "order", epoch)
        )
        if self.pool and self.pool.replaces_data:
            # As many batches as the data fill, all from the pool.
            return [order[:0] for _ in torch.split(order, size)]
        labelled = self.pool.labelled_per_batch(size) if self.pool else size
        batches = list(torch.split(order, labelled))
        # A single leftover image has no batch statistics, unless a pool fills its batch up.
        return batches[:-1] if len(batches[-1]) == 1 and not self.pool else batches

    def _assemble(self, rows: Tensor, epoch: int, index: int) -> Step:
        """The step on these labelled examples and the pool's share of the batch."""
        device = self.data.y.device
        known, rows = rows, sent(rows, device)
        ids, y, extra = rows, self.data.y[rows], None
        # What reads files must know the numbers, which the device would have to be waited for.
        x = self.data.images(known if self.data.streamed else rows)
        if self.pool:
            count = self.options.batch_size - len(rows)
            known = self.pool.draw(count, self.seed, epoch, index)
            drawn, pool = sent(known, device), self.pool.data
            ids = torch.cat([rows, self.pool.first + drawn])
            x = torch.cat([x, pool.images(known if pool.streamed else drawn)])
            y = torch.cat([y, pool.y[drawn]])
            extra = None if self.pool.replaces_data else ids >= self.pool.first
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

    def _threat_at(self, progress: float) -> Threat:
        """The threat once the fraction ``progress`` of training is done: eps may warm up."""
        warmup = self.options.eps_warmup
        if progress >= warmup:
            return self.threat
        return replace(self.threat, eps=self.threat.eps * max(progress / warmup, 1e-3))

    def _update(self, step: Step) -> Trained:
        """Take one step of the optimiser, at the learning rate for the step's progress."""
        factor = self.schedule(step.progress, began=step.epoch / self.options.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = group.get("peak", self.options.lr) * factor
        self.optimizer.zero_grad(set_to_none=True)
        with ExitStack() as until_stepped:
            trained = self.recipe.backward(step, until_stepped)
            self.optimizer.step()
        self.recipe.after_optimizer_step(step)
        return trained

    def swap_in_eval_weights(self) -> AbstractContextManager[None]:
        """Give the model the weights that are measured and saved, until the context is left."""
        return self.recipe.swap_in_eval_weights(self.model, self.auxiliaries)

    def _measure(self, split: Split | None, epoch: int) -> tuple[float | None, float | None]:
        """Clean and PGD-10 accuracy in evaluation mode; None without images."""
        if not split:
            return None, None
        try:
            return accuracies(self.model, split, self.threat, self.seed, shard=self.shard)
        except UserError as error:  # the logits are not finite, and training made them so
            raise _diverged(f"after epoch {epoch + 1} {error}", epoch) from None

    def _check_model(self, epoch: int) -> None:
        """Check weights and logits before they are saved: the last update may have ruined them.

        Raises:
            RunError: something is not finite.
        """
        # Weights of 1e30 are finite, but the logits are not.
        with evaluating(self.model), torch.no_grad():
            logits = self.model(self.data.images(slice(1)))
        # Of buffers only the statistics: others may be infinite by design, as a mask of -inf.
        norms = [m for m in self.model.modules() if isinstance(m, _NormBase)]
        statistics = [buffer for norm in norms for buffer in norm.buffers(recurse=False)]
        tensors = (logits, *self.model.parameters(), *statistics)
        not_finite = torch.stack([~t.isfinite().all() for t in tensors]).sum()
        self.shard.all_reduce_sum_([not_finite])
        if int(not_finite):
            what = f"the model's weights or logits are not finite after epoch {epoch + 1}"
            raise _diverged(what, epoch)


def _check_loss(losses: Tensor, epoch: int, batch: int) -> None:
    """Raise ``RunError`` if the sum of the losses (0-dim) is not finite."""
    if not math.isfinite(float(losses)):
        what = f"the training loss is not finite in epoch {epoch + 1}, by batch {batch + 1}"
        raise _diverged(what, epoch)


def _diverged(what: str, epoch: int) -> RunError:
    kept = "the last finished epoch is kept" if epoch else "nothing is kept"
    return RunError(f"{what}; {kept}; try a smaller --lr")
