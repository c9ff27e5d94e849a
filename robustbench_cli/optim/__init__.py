"""Optimisers and learning-rate schedules, by name."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from robustbench_cli.core.registry import Number, Registry

Fraction = Annotated[Number, Field(ge=0, le=1)]

_HAIR = 1e-9
"""In floating point, too, 75/76 of a run must fall on its epoch."""


def weight_matrices(model: nn.Module) -> list[nn.Parameter]:
    """What trains of a model, without biases and BatchNorm: the tensors of several dimensions."""
    return [p for p in model.parameters() if p.requires_grad and p.ndim > 1]


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
        plain = params if self.decay_norm else weight_matrices(model)
        bare = [] if self.decay_norm else [p for p in params if p.ndim <= 1]
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
        return torch.optim.SGD(
            groups, lr=lr, momentum=self.momentum, nesterov=self.nesterov, fused=True
        )


@OPTIMIZERS.register("adam")
@dataclass(frozen=True, kw_only=True)
class Adam(OptimizerConfig):
    """Adam (Kingma & Ba, 2015), https://arxiv.org/abs/1412.6980."""

    beta1: Fraction = 0.9
    """Decay of the running mean of gradients."""
    beta2: Fraction = 0.999
    """Decay of the running mean of their squares."""

    def over(self, groups: list[dict[str, object]], lr: float) -> torch.optim.Optimizer:
        return torch.optim.Adam(groups, lr=lr, betas=(self.beta1, self.beta2), fused=True)


@dataclass(frozen=True, kw_only=True)
class Schedule(ABC):
    """The learning rate as a factor of ``train.lr`` over the course of a run."""

    warmup: Fraction = 0.0
    """Share of the run in which the rate rises linearly from zero, with every iteration."""
    per: Literal["iteration", "epoch"] = "iteration"
    """Whether the rate moves with every iteration, or is that of the epoch's beginning; a warm-up
    rises with every iteration all the same."""

    def __call__(self, t: float, began: float | None = None) -> float:
        """The factor at ``t``, the share of the run that is done, in [0, 1).

        Args:
            began: the share that was done when the epoch began; None: ``t``.
        """
        rise = min(1.0, t / self.warmup) if self.warmup else 1.0
        return rise * self.factor(t if began is None or self.per == "iteration" else began)

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
        return float(self.gamma ** sum(t >= m - _HAIR for m in self.milestones))


@SCHEDULES.register("cosine")
@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """Half a cosine from the full rate to zero, or to ``floor``.

    Carmon et al. (2019) move it once per epoch; Hendrycks et al. (2019) end at 1e-6, which is a
    floor of 1e-5 at a rate of 0.1.
    """

    floor: Fraction = 0.0
    """Where it ends, as a share of the full rate."""

    def factor(self, t: float) -> float:
        return _cosine(1.0, self.floor, t)


@SCHEDULES.register("cyclic")
@dataclass(frozen=True, kw_only=True)
class Cyclic(Schedule):
    """A triangle: zero, the full rate at ``peak``, zero (Wong et al., 2020).

    ``peak=2/5`` is what Wong et al. run on MNIST and Rice et al. (2020) call superconvergence.
    """

    peak: Annotated[Number, Field(gt=0, lt=1)] = 0.5
    """Share of the run at which the rate is highest."""

    def factor(self, t: float) -> float:
        return t / self.peak if t < self.peak else (1 - t) / (1 - self.peak)


@SCHEDULES.register("multi-decay")
@dataclass(frozen=True, kw_only=True)
class MultiDecay(Schedule):
    """Equal steps down, ``drops`` of them over the run (Rice et al., 2020: each takes a tenth)."""

    drops: Annotated[int, Field(ge=1)] = 10
    """Into how many stretches of one rate the run falls."""

    def factor(self, t: float) -> float:
        return 1 - min(math.floor(t * self.drops + _HAIR), self.drops) / self.drops


@SCHEDULES.register("linear")
@dataclass(frozen=True, kw_only=True)
class Linear(Schedule):
    """Straight lines through given points; the default is piecewise, smoothed (Rice et al., 2020).

    Their code rounds the thirds of the run down to whole epochs.
    """

    times: tuple[Fraction, ...] = (0.0, 1 / 3, 2 / 3, 1.0)
    """Shares of the run, in order."""
    factors: tuple[Annotated[Number, Field(ge=0)], ...] = (1.0, 1.0, 0.1, 0.01)
    """The factor at each of them; outside of them the nearest."""

    def __post_init__(self) -> None:
        if not self.times or len(self.times) != len(self.factors):
            raise ValueError(f"{len(self.times)} times and {len(self.factors)} factors")
        if any(after <= before for before, after in pairwise(self.times)):
            raise ValueError("times must rise")

    def factor(self, t: float) -> float:
        return float(np.interp(t, self.times, self.factors))


@SCHEDULES.register("one-cycle")
@dataclass(frozen=True, kw_only=True)
class OneCycle(Schedule):
    """Half a cosine up, half a cosine down to nearly nothing, as PyTorch does it.

    Smith & Topin (2018), https://arxiv.org/abs/1708.07120.  Momentum stays as it is.
    """

    peak: Annotated[Number, Field(gt=0, lt=1)] = 0.3
    """Share of the run at which the rate is highest."""
    first: Fraction = 1 / 25
    """Where it begins, as a share of the full rate."""
    final: Fraction = 1 / 250_000
    """Where it ends, as a share of the full rate."""

    def factor(self, t: float) -> float:
        if t < self.peak:
            return _cosine(self.first, 1.0, t / self.peak)
        return _cosine(1.0, self.final, (t - self.peak) / (1 - self.peak))


def _cosine(begin: float, end: float, t: float) -> float:
    """From ``begin`` to ``end`` along half a cosine, ``t`` in [0, 1]."""
    return end + (begin - end) * 0.5 * (1 + math.cos(math.pi * t))
