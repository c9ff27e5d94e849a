"""Optimisers and learning-rate schedules, by name."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from robustbench_cli.registry import Number, Registry

Fraction = Annotated[Number, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(ABC):
    """Hyper-parameters of an optimiser."""

    weight_decay: Annotated[Number, Field(ge=0)] = 0.0
    """L2 coefficient, on every parameter unless ``decay_norm`` is off."""
    decay_norm: bool = True
    """Whether biases and BatchNorm parameters decay, too."""

    def build(
        self, model: nn.Module, lr: float, more: Sequence[dict[str, object]] = ()
    ) -> torch.optim.Optimizer:
        """An optimiser over the trainable parameters of ``model``, in named order.

        Args:
            more: further parameter groups; ``weight_decay`` is the usual one where they say
                nothing.
        """
        params = [p for p in model.parameters() if p.requires_grad]
        plain = [p for p in params if self.decay_norm or p.ndim > 1]
        bare = [p for p in params if not (self.decay_norm or p.ndim > 1)]
        groups: list[dict[str, object]] = [{"params": plain, "weight_decay": self.weight_decay}]
        if bare:
            groups.append({"params": bare, "weight_decay": 0.0})
        groups += [{"weight_decay": self.weight_decay, **group} for group in more]
        return self.over(groups, lr)

    @abstractmethod
    def over(self, groups: list[dict[str, object]], lr: float) -> torch.optim.Optimizer:
        """The optimiser over these parameter groups."""


OPTIMIZERS: Registry[OptimizerConfig] = Registry("optimizer", __name__)


@OPTIMIZERS.register("sgd")
@dataclass(frozen=True, kw_only=True)
class SGD(OptimizerConfig):
    """Stochastic gradient descent with momentum."""

    weight_decay: Annotated[Number, Field(ge=0)] = 5e-4
    momentum: Annotated[Number, Field(ge=0, lt=1)] = 0.9
    """Share of the last step that the next one keeps."""
    nesterov: bool = False
    """Look ahead along the momentum (Nesterov, 1983)."""

    def over(self, groups: list[dict[str, object]], lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(groups, lr=lr, momentum=self.momentum, nesterov=self.nesterov)


@OPTIMIZERS.register("adam")
@dataclass(frozen=True, kw_only=True)
class Adam(OptimizerConfig):
    """Adam (Kingma & Ba, 2015), https://arxiv.org/abs/1412.6980."""

    beta1: Fraction = 0.9
    """Decay of the running mean of gradients."""
    beta2: Fraction = 0.999
    """Decay of the running mean of their squares."""

    def over(self, groups: list[dict[str, object]], lr: float) -> torch.optim.Optimizer:
        return torch.optim.Adam(groups, lr=lr, betas=(self.beta1, self.beta2))


@dataclass(frozen=True, kw_only=True)
class Schedule(ABC):
    """The learning rate as a factor of ``train.lr`` over the course of a run."""

    warmup: Fraction = 0.0
    """Share of the run in which the rate rises linearly from zero."""

    def __call__(self, t: float) -> float:
        """The factor at ``t``, the share of the run that is done, in [0, 1)."""
        rise = min(1.0, t / self.warmup) if self.warmup else 1.0
        return rise * self.factor(t)

    @abstractmethod
    def factor(self, t: float) -> float:
        """The factor without the warm-up."""


SCHEDULES: Registry[Schedule] = Registry("schedule", __name__)


@SCHEDULES.register("constant")
@dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """The same rate throughout."""

    def factor(self, t: float) -> float:
        return 1.0


@SCHEDULES.register("piecewise")
@dataclass(frozen=True, kw_only=True)
class Piecewise(Schedule):
    """Multiply by ``gamma`` at each milestone (Rice et al., 2020: a half and three quarters)."""

    milestones: tuple[Fraction, ...] = (0.5, 0.75)
    """Shares of the run, e.g. ``[0.5, 0.75]``."""
    gamma: Annotated[Number, Field(gt=0)] = 0.1
    """The factor at each milestone."""

    def factor(self, t: float) -> float:
        # A hair of tolerance: 75/76 of a run in floating point must still fall on its epoch.
        return float(self.gamma ** sum(t >= m - 1e-9 for m in self.milestones))


@SCHEDULES.register("cosine")
@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """Half a cosine from the full rate to zero."""

    def factor(self, t: float) -> float:
        return 0.5 * (1 + math.cos(math.pi * t))


@SCHEDULES.register("cyclic")
@dataclass(frozen=True, kw_only=True)
class Cyclic(Schedule):
    """A triangle: zero, the full rate at ``peak``, zero (Wong et al., 2020)."""

    peak: Annotated[Number, Field(gt=0, lt=1)] = 0.5
    """Share of the run at which the rate is highest."""

    def factor(self, t: float) -> float:
        return t / self.peak if t < self.peak else (1 - t) / (1 - self.peak)
