"""What an attack is given and shown: its examples, its state, and the model's answers."""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.threat import Threat

State = dict[str, Tensor]
"""What an attack remembers, one row per example; ``x`` is the image to be looked at next.

``probes`` (B, Q, C, H, W), where present, are further images that are only classified.
"""


class Examples(Protocol):
    """Where images come from: a data split, or tensors that a test made."""

    @property
    def y(self) -> Tensor: ...

    def images(self, rows: Tensor | slice) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class Task:
    """The examples that an attack works on, one row each."""

    x: Tensor
    """Clean images (B, C, H, W) in [0, 1]."""
    y: Tensor
    """True classes (B)."""
    clean: Tensor
    """Logits (B, K) of the clean images, in float32."""
    threat: Threat
    """With a mask: bound to these images."""
    noise: Noise
    """Keyed by example, for this attack and this lane only."""
    restart_or_target: int
    """Which of the attack's ``lanes`` this is: a restart, or the rank of a target class."""
    data: Examples
    """All examples of the evaluation, for attacks that look at other images."""

    def only(self, rows: Tensor) -> "Task":
        """Some of the rows."""
        return replace(
            self,
            x=self.x[rows],
            y=self.y[rows],
            clean=self.clean[rows],
            threat=self.threat.only(rows),
            noise=self.noise.only(rows),
        )

    def joined(self, other: "Task") -> "Task":
        """These rows, then those."""
        return replace(
            self,
            x=torch.cat([self.x, other.x]),
            y=torch.cat([self.y, other.y]),
            clean=torch.cat([self.clean, other.clean]),
            threat=self.threat.joined(other.threat),
            noise=replace(self.noise, ids=torch.cat([self.noise.ids, other.noise.ids])),
        )

    def ranked(self, rank: int) -> Tensor:
        """The class with the ``rank``-th largest clean logit; 1 is the predicted one."""
        return self.clean.argsort(dim=1, descending=True, stable=True)[:, rank - 1]


class Output(NamedTuple):
    """What the model made of images: logits (B, K) and, if it was asked for, features (B, F)."""

    logits: Tensor
    features: Tensor | None


class Observation(NamedTuple):
    """What a pass of the model showed at ``state["x"]``; all in float32 or wider."""

    logits: Tensor
    """(B, K); averaged over the draws for a randomised model."""
    loss: Tensor
    """(B); what the gradient is of, or the margin where the attack sees logits only."""
    grad: Tensor
    """(B, C, H, W); for ``sees = "jacobian"`` (B, M, C, H, W), of each ``wanted`` logit."""
    probes: Tensor
    """(B, Q, K); logits of the probes."""
    features: Tensor
    """(B, F); what the last layer reads.  Not a number, (B), unless the attack ``taps`` it."""
    step_index: Tensor
    """How many looks each example has had before this one (B, int64)."""


Access = Literal["gradient", "logits", "jacobian"]
"""What an attack needs to know of the model at each look."""
