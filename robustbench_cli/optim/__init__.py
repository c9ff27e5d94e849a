"""Optimizers and learning-rate schedules, by name.

Every module of this package is imported on first use, so a new optimizer or schedule is one new
file.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from robustbench_cli.core.registry import Number, Registry

Fraction = Annotated[Number, Field(ge=0, le=1)]
"""A number in [0, 1], such as a share of the run or of the full learning rate."""


def weight_matrices(model: nn.Module) -> list[nn.Parameter]:
    """Return the trainable parameters with at least two dimensions: no biases, no BatchNorm."""
    return [p for p in model.parameters() if p.requires_grad and p.ndim > 1]


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(ABC):
    """Hyper-parameters of an optimizer."""

    weight_decay: Annotated[Number, Field(ge=0)] = 0.0
    """L2 coefficient, on every parameter unless ``decay_norm`` is off."""
    decay_norm: bool = True
    """Apply weight decay to biases and BatchNorm parameters, too."""

    def build(
        self, model: nn.Module, lr: float, more: Sequence[dict[str, object]] = ()
    ) -> torch.optim.Optimizer:
        """Return an optimizer over the trainable parameters of ``model``, in named order.

        Args:
            lr: the learning rate of every group that does not set its own.
            more: further parameter groups; a group without ``weight_decay`` gets this
                configuration's.
        """
        params = [p for p in model.parameters() if p.requires_grad]
        decayed = params if self.decay_norm else weight_matrices(model)
        undecayed = [] if self.decay_norm else [p for p in params if p.ndim <= 1]
        groups: list[dict[str, object]] = [{"params": decayed, "weight_decay": self.weight_decay}]
        if undecayed:
            groups.append({"params": undecayed, "weight_decay": 0.0})
        groups += [{"weight_decay": self.weight_decay, **group} for group in more]
        return self.over(groups, lr)

    @abstractmethod
    def over(self, groups: list[dict[str, object]], lr: float) -> torch.optim.Optimizer:
        """Return the optimizer over these parameter groups (as torch.optim takes them)."""


OPTIMIZERS: Registry[OptimizerConfig] = Registry("optimizer", __name__)


@dataclass(frozen=True, kw_only=True)
class Schedule(ABC):
    """The learning rate as a factor of ``train.lr`` over the course of a run."""

    warmup: Fraction = 0.0
    """Share of the run in which the rate rises linearly from zero, with every iteration."""
    per: Literal["iteration", "epoch"] = "iteration"
    """Update the rate every iteration, or keep the rate of the epoch's first iteration for the
    whole epoch; a warm-up rises with every iteration in both cases."""
    levels: Annotated[int, Field(ge=0)] = 0
    """Keep the rate constant in each of so many equal parts of the run, as at the beginning of the
    part, whatever ``per`` says: for codes whose epochs are other parts of a run; 0: no such
    parts."""

    omitted_at_default: ClassVar[tuple[str, ...]] = ("levels",)

    def __call__(self, t: float, began: float | None = None) -> float:
        """Return the factor at ``t``, the share of the run that is done, in [0, 1).

        Args:
            began: the share that was done when the epoch began; None: ``t``.
        """
        rise = min(1.0, t / self.warmup) if self.warmup else 1.0
        if self.levels:
            # The tolerance is for parts that begin at t up to floating-point error.
            return rise * self.factor(math.floor(t * self.levels + 1e-9) / self.levels)
        return rise * self.factor(t if began is None or self.per == "iteration" else began)

    @abstractmethod
    def factor(self, t: float) -> float:
        """Return the factor at ``t`` in [0, 1] without the warm-up."""


SCHEDULES: Registry[Schedule] = Registry("schedule", __name__)
