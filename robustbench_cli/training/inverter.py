"""Training of inversion networks: Adam, early stopping, and a state that a later process goes on
from."""

import copy
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from robustbench_cli.core.errors import RunError, UserError
from robustbench_cli.core.example_rng import stream_generator
from robustbench_cli.core.examples import Examples
from robustbench_cli.inversion.net import Inverter, PublishedAnswers, shuffled
from robustbench_cli.training.checkpoint import (
    load_tensors,
    restore_training,
    save_tensors,
    training_state,
)

_SAVED_EVERY = 30.0
"""Seconds between two states that are written, at most; an epoch is never cut."""


@dataclass(frozen=True, kw_only=True)
class InverterTraining:
    """How an inversion network is trained."""

    epochs: int
    patience: int
    """Epochs without a lower validation error after which training ends."""
    batch_size: int
    lr: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class AttackerData:
    """Images of the attacker's own, and what the model publishes of them."""

    examples: Examples
    """N images."""
    known: PublishedAnswers
    """Of the same N images."""
    foreign_maps: bool = False
    """Whether each image is given the map of another one, anew in every epoch."""

    def __len__(self) -> int:
        return len(self.known.confidences)

    def in_epoch(self, epoch: int, seed: int) -> PublishedAnswers:
        """Return what the attacker knows of the images in an epoch.

        A fixed map of another image would be learned by heart; one that changes can only be
        ignored, which is what an attack does that learns nothing from maps.
        """
        return shuffled(self.known, f"epoch {epoch}", seed) if self.foreign_maps else self.known


@dataclass(kw_only=True)
class FitState:
    """How far a training has come."""

    epoch: int = 0
    """The number of epochs that are done."""
    best: float = float("inf")
    """The lowest mean squared error on the validation images."""
    best_epoch: int = 0


def fit_inverter(
    net: Inverter,
    train: AttackerData,
    validation: AttackerData,
    training: InverterTraining,
    label: str,
    path: Path,
    progress: Callable[[int], None],
) -> FitState:
    """Train a network, and leave it with the weights of the lowest validation error.

    The order of the images depends on seed, label and epoch only, so that a training which goes on
    from the state in ``path`` ends with the same weights as one that was never interrupted.

    Raises:
        RunError: the loss became NaN or infinite.
    """
    optimizer = torch.optim.Adam(net.parameters(), training.lr)
    best = copy.deepcopy(net)
    state = _restored(net, optimizer, best, path)
    written = time.monotonic()
    while state.epoch < training.epochs and state.epoch - state.best_epoch < training.patience:
        order = stream_generator("inversion order", training.seed, label, state.epoch)
        rows_in_order = torch.randperm(len(train), generator=order).to(
            train.known.confidences.device
        )
        net.train()
        known = train.in_epoch(state.epoch, training.seed)
        for rows in torch.split(rows_in_order, training.batch_size):
            loss = net.loss(known.rows(rows), train.examples.images(rows))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        state.epoch += 1
        error = mean_squared_error(net, validation, training.batch_size)
        if error != error or error == float("inf"):
            raise RunError(f"inversion {label!r}: the loss is {error} after epoch {state.epoch}")
        if error < state.best:
            state.best, state.best_epoch = error, state.epoch
            best.load_state_dict(net.state_dict())
        progress(state.epoch)
        if time.monotonic() - written > _SAVED_EVERY:
            save_tensors(path, training_state(net, optimizer, best), asdict(state))
            written = time.monotonic()
    net.load_state_dict(best.state_dict())
    net.eval()
    return state


@torch.no_grad()
def mean_squared_error(net: Inverter, data: AttackerData, batch: int) -> float:
    """Return the mean squared error of the images that a network rebuilds."""
    net.eval()
    total = 0.0
    every = torch.arange(len(data), device=data.known.confidences.device)
    for rows in torch.split(every, batch):
        x = data.examples.images(rows)
        total += float((net.images(data.known.rows(rows)) - x).square().mean((1, 2, 3)).sum())
    return total / len(data)


@torch.no_grad()
def rebuilt_images(net: Inverter, known: PublishedAnswers, batch: int) -> Tensor:
    """Return the images (N, C, H, W) in [0, 1], on the CPU, that a network rebuilds."""
    net.eval()
    every = torch.arange(len(known.confidences), device=known.confidences.device)
    return torch.cat([net.images(known.rows(part)).cpu() for part in torch.split(every, batch)])


def _restored(
    net: nn.Module, optimizer: torch.optim.Optimizer, best: nn.Module, path: Path
) -> FitState:
    """Load what an earlier process left, if anything; return how far it had come."""
    if not path.is_file():
        return FitState()
    tensors, said = load_tensors(path)
    try:
        restore_training(tensors, net, optimizer, best)
    except (RuntimeError, ValueError, KeyError) as error:
        raise UserError(f"{path} does not fit the network: {error}") from None
    return FitState(**said)
