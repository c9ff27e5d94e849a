"""Classifiers: images in [0, 1] to logits, with the last layer kept apart as ``head``.

A model file registers a frozen dataclass of hyper-parameters with one method, ``build``.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Registry
from robustbench_cli.models.weights import WeightsFile, fill_from_file


@dataclass(frozen=True)
class Shape:
    """Properties of a data set that a model depends on: image size, classes, channel statistics."""

    channels: int
    height: int
    width: int
    classes: int
    mean: tuple[float, ...]
    """Mean of each channel, for pixels in [0, 1]."""
    std: tuple[float, ...]
    """Standard deviation of each channel, for pixels in [0, 1]."""


class Normalize(nn.Module):
    """Return (x - mean) / std per channel of images (B, C, H, W) in [0, 1].

    It is part of the model so that eps keeps its pixel units.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class Classifier(nn.Module):
    """``head(body(normalize(x)))``: images x (B, C, H, W) in [0, 1] to logits (B, classes).

    ``body`` ends in the features (B, F) that ``head`` reads.  ``low_precision`` runs the forward
    pass in bfloat16; logits are float32 in either case.
    """

    head: nn.Module
    low_precision: bool = False
    logit_scale: float = 1.0
    """Factor of the head's scores (hypersphere embedding); 1 for a linear head."""

    def __init__(self, normalize: nn.Module, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.normalize = normalize
        self.body = body
        self.head = head

    def features(self, x: Tensor) -> Tensor:
        """Return the input of the last layer, (B, F), for images (B, C, H, W) in [0, 1]."""
        out: Tensor = self.body(self.normalize(x))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 logits (B, classes) for images (B, C, H, W) in [0, 1]."""
        if not self.low_precision:
            logits: Tensor = self.head(self.features(x))
            return logits
        # One context per pass: autocast's weight cache must not outlive a weight perturbation.
        with torch.autocast(x.device.type, torch.bfloat16):
            logits = self.head(self.features(x))
        return logits.float()


def has_bf16(where: torch.device) -> bool:
    """Return whether bfloat16 is fast on this device, not merely possible."""
    if where.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # torch has no public function for this, and older versions have none at all.
    known: Callable[[], bool] = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return where.type == "cpu" and known()


def runs_bf16(where: torch.device) -> bool:
    """Return whether this device computes in bfloat16 at all: whether that is fast shows in time.

    Of CPUs these are those with AVX512-BF16, whose products of bfloat16 take half the time.
    """
    if where.type != "cpu" or has_bf16(where):
        return has_bf16(where)
    known: Callable[[], bool] = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return known()


@dataclass(frozen=True, kw_only=True)
class ModelConfig(ABC):
    """Hyper-parameters of an architecture."""

    normalize: bool | Literal["signed"] = True
    """Normalise images inside the model by the data set's channel mean and std; signed: to 2 x - 1
    instead."""

    @abstractmethod
    def build(self, shape: Shape) -> Classifier:
        """Return a new network for images of this shape, in train mode."""

    def read(self, model: Classifier, file: WeightsFile) -> tuple[str, ...]:
        """Load a weights file into a network that this configuration built.

        Returns:
            What is to be said of it.

        Raises:
            UserError: the file does not fit the network.
        """
        return fill_from_file(model, file)

    def classes_in(self, state: Mapping[str, Tensor]) -> int | None:
        """Return the number of classes of a network with these weights; None: it is not known."""
        weight = state.get("head.weight")
        return None if weight is None else len(weight)

    def class_names(self) -> tuple[str, ...]:
        """Return the names of the classes of published weights; none: they are not known."""
        return ()

    def at_least(self, side: int, shape: Shape) -> None:
        """Check that both sides of the images have at least ``side`` pixels.

        Raises:
            UserError: one is shorter.
        """
        if min(shape.height, shape.width) < side:
            raise UserError(
                f"model {MODELS.name_of(self)!r}: images of {shape.height}x{shape.width} are too "
                f"small; both sides must be at least {side}"
            )

    def normalizer(self, shape: Shape) -> nn.Module:
        """Return the first layer, as the field ``normalize`` says."""
        half = (0.5,) * shape.channels
        mean, std = (half, half) if self.normalize == "signed" else (shape.mean, shape.std)
        return Normalize(mean, std) if self.normalize else nn.Identity()


MODELS: Registry[ModelConfig] = Registry("model", __name__)
