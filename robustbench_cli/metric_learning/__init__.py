"""Robust deep metric learning: nets that place images of a class close together, one file each.

A metric defense is a frozen dataclass with one method, ``objective``: the loss of one batch, in
which classes are balanced.  Losses, miners and samplers are those of pytorch-metric-learning
(Musgrave et al., 2020), https://arxiv.org/abs/2008.09164, which is an optional package.  Attacks on
retrieval are in ``metric_learning.retrieval``.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from robustbench_cli.core.gradient_ascent import Ascent, Steps, StepSize, check_reach
from robustbench_cli.core.registry import Number, Registry
from robustbench_cli.metric_learning._losses import MetricLossName, metric_loss
from robustbench_cli.metric_learning._mining import MinerName
from robustbench_cli.metric_learning._step import MetricStep, Triplets

__all__ = ["METRIC_DEFENSES", "MetricDefense", "MetricStep", "RobustMetricDefense", "Triplets"]

Margin = Annotated[Number, Field(gt=0)]
Auto = Literal["auto"]


@dataclass(frozen=True, kw_only=True)
class MetricDefense(ABC):
    """The loss of metric learning, and how its triplets are chosen."""

    loss: MetricLossName = "triplet"
    """What pulls a class together: distances of triplets, or of pairs."""
    margin: Margin | Auto = "auto"
    """Of the triplet loss, or of the negative pairs of the contrastive one; auto: 0.2 for triplets
    of unit embeddings, else 1."""
    miner: MinerName = "distance"
    """Choice of the negatives: by distance (Wu et al., 2017), or random, semihard, hard."""

    remembers_loss: ClassVar[bool] = False
    """True if a batch needs the loss of the one before, which is then saved with the run."""

    @abstractmethod
    def objective(self, step: MetricStep) -> Tensor:
        """Return the loss (0-dim) of one batch, with gradients to the weights.

        Images are attacked in evaluation mode; the pass that has gradients is in training mode.
        """

    def margin_for(self, unit: bool) -> float:
        """Return the margin in units of the distance.

        Args:
            unit: whether embeddings have norm 1.
        """
        usual = 0.2 if unit and self.loss == "triplet" else 1.0
        return usual if self.margin == "auto" else float(self.margin)

    def of_triplets(self, step: MetricStep, z: Tensor, y: Tensor, chosen: Triplets) -> Tensor:
        """Return the mean loss (0-dim) of triplets among embeddings (M, D) with labels (M)."""
        return metric_loss(self.loss, self.margin_for(step.unit), step.unit)(z, y, chosen)


@dataclass(frozen=True, kw_only=True)
class RobustMetricDefense(MetricDefense):
    """One that attacks images while it trains."""

    steps: Steps = 8
    """Steps of the attack."""
    step: StepSize = 0.25
    """Step size as a fraction of eps."""

    def __post_init__(self) -> None:
        check_reach(self.steps, self.step)

    @property
    def climb(self) -> Ascent:
        """The attack's steps, from the clean image: a random start is no part of these methods."""
        return Ascent(steps=self.steps, step=self.step, start="clean")


METRIC_DEFENSES: Registry[MetricDefense] = Registry("metric-defense", __name__)
