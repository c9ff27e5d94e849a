"""Layers around a model of somebody else, from images in [0, 1] to what it takes, and from what it
returns to logits."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_cli.models.outputs import OutputPlace, logits_at
from robustbench_cli.models.taps import last_layer


class FittedModel(nn.Module):
    """A model between what prepares its images and what reads its output.

    Args:
        model: whatever the model of somebody else takes and returns.
        before: layers from images (B, C, H, W) in [0, 1] to what the model takes.
        after: layers from what it returns to logits (B, K).

    Attributes:
        settings: what the record of an evaluation says of the model; empty: nothing more.
        notes: what is to be said of it.
    """

    def __init__(
        self, model: nn.Module, before: Sequence[nn.Module], after: Sequence[nn.Module]
    ) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {}
        self.notes: tuple[str, ...] = ()
        self.before, self.model = nn.Sequential(*before), model
        self.after = nn.Sequential(*after)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.after(self.model(self.before(x)))
        return logits

    @property
    def head(self) -> nn.Module:
        """The layer whose input are the features: that of the model inside."""
        return last_layer(self.model)


class PickOutput(nn.Module):
    """The logits at their place in what a model returns."""

    def __init__(self, place: OutputPlace) -> None:
        super().__init__()
        self.place = place

    def forward(self, out: Any) -> Tensor:
        return logits_at(out, self.place)


class AsColumn(nn.Module):
    """Numbers (B) as (B, 1)."""

    def forward(self, out: Tensor) -> Tensor:
        return out.flatten().unsqueeze(1)


class AsFloat32(nn.Module):
    """Logits in float32."""

    def forward(self, out: Tensor) -> Tensor:
        return out.float()


class TwoLogits(nn.Module):
    """One logit z (B, 1) as the two logits 0 and z (B, 2)."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(z), z], 1)


class GroupedLogits(nn.Module):
    """The largest of the logits (B, K) of each group: (B, number of groups)."""

    index: Tensor

    def __init__(self, groups: tuple[tuple[int, ...], ...]) -> None:
        super().__init__()
        longest = max(map(len, groups))
        # A group is filled up with its own first member, which changes no maximum.
        filled = [[*g, *[g[0]] * (longest - len(g))] for g in groups]
        self.register_buffer("index", torch.tensor(filled), persistent=False)
        self.single = longest == 1

    def forward(self, logits: Tensor) -> Tensor:
        if self.single:
            return logits[:, self.index[:, 0]]
        return logits[:, self.index].amax(2)
