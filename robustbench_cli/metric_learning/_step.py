"""What a metric defense sees of one batch."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.model_modes import evaluating
from robustbench_cli.core.threat import Threat


class Triplets(NamedTuple):
    """T triplets as positions (T, int64) in a batch, the anchor's class being the positive's."""

    anchor: Tensor
    positive: Tensor
    negative: Tensor

    @classmethod
    def stacked(cls, count: int, device: torch.device) -> "Triplets":
        """Return the triplets of a batch of T anchors, then T positives, then T negatives."""
        row = torch.arange(count, device=device)
        return cls(row, row + count, row + 2 * count)


@dataclass(frozen=True, kw_only=True)
class MetricStep:
    """One class-balanced batch."""

    model: nn.Module
    """Images (B, C, H, W) in [0, 1] to embeddings (B, D), in training mode."""
    x: Tensor
    """Images (B, C, H, W) in [0, 1]."""
    y: Tensor
    """Labels (B)."""
    threat: Threat
    noise: Noise
    """Keyed by example, B of them."""
    unit: bool = True
    """Whether embeddings have norm 1."""
    key: tuple[object, ...] = ()
    """Seed, epoch and batch: random choices of triplets follow from it."""
    last_loss: Tensor | None = None
    """The loss of the batch before (0-dim), for defenses that ask for it."""

    def clean_embeddings(self) -> Tensor:
        """Return the embeddings (B, D) of the images as they are, in evaluation mode, detached."""
        with evaluating(self.model), torch.no_grad():
            z: Tensor = self.model(self.x)
        return z
