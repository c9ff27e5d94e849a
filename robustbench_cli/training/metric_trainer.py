"""Training of embeddings: one model, one metric defense, an epoch at a time."""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from robustbench_cli.config.schema import Embedding, Training
from robustbench_cli.core.errors import RunError
from robustbench_cli.core.example_rng import Noise, stream_key
from robustbench_cli.core.threat import Threat
from robustbench_cli.core.transfer import sent
from robustbench_cli.data import Dataset, Split
from robustbench_cli.distributed.group import ALONE, Shard
from robustbench_cli.metric_learning import MetricDefense, MetricStep
from robustbench_cli.metric_learning._embedder import Embedder
from robustbench_cli.metric_learning._recall import COLLAPSED, embed_split, recall_at_1
from robustbench_cli.metric_learning._sampling import balanced_batches
from robustbench_cli.optim import Schedule
from robustbench_cli.training.trainer import HistoryRow, Watch

_MEMORY = "last-loss"
"""The auxiliary module that keeps the loss of the batch before."""


class LastLoss(nn.Module):
    """The loss of the batch before, saved with the run."""

    value: Tensor

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.register_buffer("value", torch.zeros((), device=device))


@dataclass(kw_only=True)
class MetricTrainer:
    """Embeddings in training: one call of :meth:`epoch` per epoch.

    Every random draw is keyed by the seed and the epoch, so a resumed run repeats the uninterrupted
    one bit for bit (on the same device and software).
    """

    model: Embedder
    defense: MetricDefense
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    threat: Threat
    options: Training
    embedding: Embedding
    dataset: Dataset
    data: Split
    """Training images on the device, without the held-out ones."""
    held_out: Split | None = None
    """Images on which an epoch is measured; None: on the first training images."""
    seed: int = 0
    auxiliaries: nn.ModuleDict = field(default_factory=nn.ModuleDict)
    shard: Shard = ALONE

    def __post_init__(self) -> None:
        if self.defense.remembers_loss:
            self.auxiliaries[_MEMORY] = LastLoss(self.data.y.device)

    def swap_in_eval_weights(self) -> AbstractContextManager[None]:
        """Leave the weights: they are the ones that are measured and saved."""
        return nullcontext()

    def epoch(self, epoch: int, on_batch: Callable[[Watch], None] = lambda _: None) -> HistoryRow:
        """Train once through as many images as there are, and measure; ``epoch`` counts from 0.

        ``recall_at_1`` and ``mean_distance`` (of two embeddings, in units of their norm) are those
        of the held-out images, or of the first training images, among themselves.

        Raises:
            RunError: the loss or a measured embedding is not finite.
        """
        began, worked = time.perf_counter(), time.process_time()
        torch.manual_seed(stream_key(self.seed, "epoch", epoch))
        batches = balanced_batches(
            self.data.y, self.embedding.per_class, self.options.batch_size, (self.seed, epoch)
        )
        losses = torch.zeros((), device=self.data.y.device, dtype=torch.float64)
        self.model.train()
        self.data.expect(torch.cat(batches))
        for index, rows in enumerate(batches):
            losses += self._update(rows, epoch, index, len(batches))
            on_batch(_watched(index + 1, len(batches), losses))
        loss = float(losses) / len(batches)
        if not math.isfinite(loss):
            raise _diverged("the training loss is", epoch)
        row: HistoryRow = {"epoch": epoch + 1, "lr": self.optimizer.param_groups[0]["lr"]}
        row |= {"loss": loss, "train_seconds": time.perf_counter() - began}
        row |= self._measured(epoch)
        row |= {"cpu_seconds": time.process_time() - worked}
        return row | {"seconds": time.perf_counter() - began}

    def _update(self, rows: Tensor, epoch: int, index: int, batches: int) -> Tensor:
        """Take one step of the optimizer; return the loss (0-dim), detached."""
        progress = (epoch + index / batches) / self.options.epochs
        factor = self.schedule(progress, began=epoch / self.options.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.lr * factor
        rows = sent(rows, self.data.y.device)
        noise = Noise(self.seed, self.data.ids[rows], f"epoch {epoch} batch {index}")
        x = self.dataset.augmented(self.data.images(rows), noise)
        memory = dict(self.auxiliaries.items()).get(_MEMORY)
        step = MetricStep(
            model=self.model,
            x=x.contiguous(memory_format=torch.channels_last),
            y=self.data.y[rows],
            threat=self.threat,
            noise=noise,
            unit=self.embedding.unit,
            key=(self.seed, epoch, index),
            last_loss=memory.value if isinstance(memory, LastLoss) else None,
        )
        loss = self.defense.objective(step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        if isinstance(memory, LastLoss):
            memory.value.copy_(loss.detach())
        return loss.detach().double()

    def _measured(self, epoch: int) -> HistoryRow:
        count = self.options.probe
        looked_at = self.held_out or (self.data.only(slice(count)) if count else None)
        if not looked_at:
            return {"recall_at_1": None, "mean_distance": None}
        gallery = embed_split(self.model, looked_at)
        if not bool(gallery.z.isfinite().all()):
            raise _diverged("embeddings are", epoch)
        return {"recall_at_1": recall_at_1(gallery), "mean_distance": gallery.spread}


def collapsed(row: HistoryRow) -> str:
    """Return a warning if the embeddings have collapsed after an epoch; else nothing."""
    spread = row.get("mean_distance")
    if spread is None or spread >= COLLAPSED:
        return ""
    return (
        f"embeddings have collapsed by epoch {row['epoch']}: two of them are {spread:.3g} norms "
        f"apart on average (warned below {COLLAPSED}); try a lower train.lr or a smaller eps"
    )


def _watched(batch: int, batches: int, losses: Tensor) -> Watch:
    return Watch(
        batch=batch,
        batches=batches,
        loss=lambda: float(losses) / batch,
        accuracy=lambda _: None,
    )


def _diverged(what: str, epoch: int) -> RunError:
    kept = "the last finished epoch is kept" if epoch else "nothing is kept"
    return RunError(f"{what} not finite in epoch {epoch + 1}; {kept}; try a smaller --lr")
