"""The arguments of an attack's methods: its examples, its state, and the model's answers."""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.threat import Threat

State = dict[str, Tensor]
"""The memory of an attack between two steps, one row per example.

``x`` (B, C, H, W) in [0, 1] is the image to be classified next.  ``probes`` (B, Q, C, H, W), where
present, are further images that are classified without a gradient.
"""


class Examples(Protocol):
    """Images with labels: a data split, or tensors in memory."""

    @property
    def y(self) -> Tensor:
        """Labels (N) int64."""

    def images(self, rows: Tensor | slice) -> Tensor:
        """Return the images (B, C, H, W) in [0, 1] at these positions."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """The examples that an attack works on, one row each."""

    x: Tensor
    """Clean images (B, C, H, W) in [0, 1]."""
    y: Tensor
    """True classes (B) int64."""
    clean: Tensor
    """Logits (B, K) of the clean images, in float32."""
    threat: Threat
    """The threat; with a mask, bound to these images."""
    noise: Noise
    """Random numbers keyed by example, for this attack and this restart or target only."""
    restart_or_target: int
    """The number of the restart, or of the target class, from 0."""
    data: Examples
    """All examples of the evaluation, for attacks that look at other images."""

    def only(self, rows: Tensor) -> "Task":
        """Return the task of these rows: positions (B, int64) or a mask (B, bool)."""
        return replace(
            self,
            x=self.x[rows],
            y=self.y[rows],
            clean=self.clean[rows],
            threat=self.threat.only(rows),
            noise=self.noise.only(rows),
        )

    def joined(self, other: "Task") -> "Task":
        """Return the task of these rows, followed by those of ``other``."""
        return replace(
            self,
            x=torch.cat([self.x, other.x]),
            y=torch.cat([self.y, other.y]),
            clean=torch.cat([self.clean, other.clean]),
            threat=self.threat.joined(other.threat),
            noise=replace(self.noise, ids=torch.cat([self.noise.ids, other.noise.ids])),
        )

    def ranked(self, rank: int) -> Tensor:
        """Return the classes (B) with the ``rank``-th largest clean logit; 1: the predicted one."""
        return self.clean.argsort(dim=1, descending=True, stable=True)[:, rank - 1]


class Output(NamedTuple):
    """The model's answer to images."""

    logits: Tensor
    """(B, K), in float32 or wider."""
    features: Tensor | None
    """(B, F): the input of the last layer; None unless the attack ``taps`` it."""


class Observation(NamedTuple):
    """The result of a pass of the model over ``state["x"]``, in float32 or wider."""

    logits: Tensor
    """(B, K); averaged over the draws for a randomised model."""
    loss: Tensor
    """(B); the attack's loss, or the margin if its ``access`` is ``logits``."""
    grad: Tensor
    """(B, C, H, W), of the loss by ``x``; for ``access = "jacobian"`` (B, M, C, H, W), of each
    logit that is ``wanted``."""
    probes: Tensor
    """(B, Q, K); logits of the probes."""
    features: Tensor
    """(B, F); the input of the last layer.  NaN, (B), unless the attack ``taps`` it."""
    step_index: Tensor
    """The number of passes that each example has had before this one (B, int64)."""


Access = Literal["gradient", "logits", "jacobian"]
"""The knowledge of the model that an attack gets at each step: the gradient of its loss, the logits
alone (a black-box attack), or the gradients of several logits."""
