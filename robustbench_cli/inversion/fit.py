"""Training of inversion networks: Adam, early stopping, and a state that a later process goes on
from."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from robustbench_cli.core.errors import RunError, UserError
from robustbench_cli.core.example_rng import stream_generator
from robustbench_cli.core.examples import Examples
from robustbench_cli.inversion.net import PublishedAnswers, shuffled

_SAVED_EVERY = 30.0
"""Seconds between two states that are written, at most; an epoch is never cut."""


class Inverter(nn.Module, ABC):
    """A network that is trained to return images from what is published of them."""

    @abstractmethod
    def loss(self, known: PublishedAnswers, x: Tensor) -> Tensor:
        """Return the scalar that training brings down.

        Args:
            x: the images (B, C, H, W) in [0, 1].
        """

    @abstractmethod
    def images(self, known: PublishedAnswers) -> Tensor:
        """Return images (B, C, H, W), clipped to [0, 1]."""


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
    weights: dict[str, Tensor] = field(default_factory=dict)
    """The weights of that epoch."""


SaveState = Callable[[Path, dict[str, Tensor], dict[str, float]], object]
LoadState = Callable[[Path], tuple[dict[str, Tensor], dict[str, float]]]


@dataclass(frozen=True, kw_only=True)
class StateFile:
    """Where the state of an unfinished training is kept, and how it is written and read."""

    path: Path
    save: SaveState
    load: LoadState


def fit_inverter(
    net: Inverter,
    train: AttackerData,
    validation: AttackerData,
    training: InverterTraining,
    label: str,
    file: StateFile,
    progress: Callable[[int], None],
) -> FitState:
    """Train a network, and leave it with the weights of the lowest validation error.

    The order of the images depends on seed, label and epoch only, so that a training which goes on
    from ``file`` ends with the same weights as one that was never interrupted.

    Raises:
        RunError: the loss became NaN or infinite.
    """
    optimizer = torch.optim.Adam(net.parameters(), training.lr)
    state = _restored(net, optimizer, file)
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
            state.weights = {k: v.detach().clone() for k, v in net.state_dict().items()}
        progress(state.epoch)
        if time.monotonic() - written > _SAVED_EVERY:
            _save(net, optimizer, state, file)
            written = time.monotonic()
    net.load_state_dict(state.weights)
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


def _save(
    net: nn.Module, optimizer: torch.optim.Optimizer, state: FitState, file: StateFile
) -> None:
    slots = optimizer.state_dict()["state"]
    tensors = {f"net.{key}": value for key, value in net.state_dict().items()}
    tensors |= {f"best.{key}": value for key, value in state.weights.items()}
    for index, slot in slots.items():
        tensors |= {f"adam.{index}.{key}": value for key, value in slot.items()}
    note = {"epoch": state.epoch, "best": state.best, "best_epoch": state.best_epoch}
    file.save(file.path, tensors, note)


def _restored(net: nn.Module, optimizer: torch.optim.Optimizer, file: StateFile) -> FitState:
    """Load what an earlier process left, if anything; return how far it had come."""
    if not file.path.is_file():
        return FitState()
    tensors, note = file.load(file.path)
    parts: dict[str, dict[str, Tensor]] = {"net": {}, "best": {}, "adam": {}}
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = value
    for name, value in parts["adam"].items():
        index, _, key = name.partition(".")
        slots.setdefault(int(index), {})[key] = value
    try:
        net.load_state_dict(parts["net"])
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": slots, "param_groups": groups})
    except (RuntimeError, ValueError, KeyError) as error:
        raise UserError(f"{file.path} does not fit the network: {error}") from None
    device = next(net.parameters()).device
    return FitState(
        epoch=int(note["epoch"]),
        best=float(note["best"]),
        best_epoch=int(note["best_epoch"]),
        weights={key: value.to(device) for key, value in parts["best"].items()},
    )
