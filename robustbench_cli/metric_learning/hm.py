"""HM: hardness manipulation (Zhou and Patel, 2022).

https://arxiv.org/abs/2203.01439
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from robustbench_cli.metric_learning import (
    METRIC_DEFENSES,
    MetricStep,
    RobustMetricDefense,
    Triplets,
)
from robustbench_cli.metric_learning._mining import MinerName, mined
from robustbench_cli.metric_learning._perturbed import distances, moved


def hardness(z: Tensor) -> Tensor:
    """Return how much farther each anchor's positive is than its negative (T).

    Args:
        z: embeddings of T anchors, then of their positives, then of their negatives (3T, D).
    """
    anchor, positive, negative = z.chunk(3)
    return distances(anchor, positive) - distances(anchor, negative)


def shortfall(z: Tensor, wanted: Tensor) -> Tensor:
    """Return minus the squared hardness (T) that is missing up to ``wanted`` (T); 0 beyond it."""
    return -(hardness(z) - wanted).clamp(max=0).square()


@METRIC_DEFENSES.register("hm")
@dataclass(frozen=True, kw_only=True)
class HM(RobustMetricDefense):
    """All three images of a triplet are moved until it is as hard as another, harder triplet.

    Triplets come from ``miner``.  How hard they are to be is the hardness of the same anchor's
    triplet from a harder miner, or follows from the loss (linear gradual adversary): from minus the
    margin at the margin's loss up to 0 without any.
    """

    miner: MinerName = "random"
    """Choice of the triplets that are attacked."""
    target: MinerName | Literal["gradual"] = "semihard"
    """The miner whose triplets set the hardness, or gradual."""

    remembers_loss: ClassVar[bool] = True

    def objective(self, step: MetricStep) -> Tensor:
        z, margin = step.clean_embeddings(), self.margin_for(step.unit)
        chosen = mined(self.miner, z, step.y, margin=margin, unit=step.unit, key=step.key)
        wanted = self._wanted(step, z, len(chosen.anchor))
        rows = torch.cat(list(chosen))
        noise = step.noise.only(rows)
        x_adv = moved(step.model, shortfall, wanted, step.x[rows], step.threat, noise, self.climb)
        placed = Triplets.stacked(len(chosen.anchor), step.y.device)
        return self.of_triplets(step, step.model(x_adv), step.y[rows], placed)

    def _wanted(self, step: MetricStep, z: Tensor, count: int) -> Tensor:
        """Return the hardness (T) that the triplets are to reach."""
        margin = self.margin_for(step.unit)
        if self.target == "gradual":
            assert step.last_loss is not None
            return -step.last_loss.clamp(0, margin).to(z).expand(count)
        harder = mined(self.target, z, step.y, margin=margin, unit=step.unit, key=step.key)
        return hardness(z[torch.cat(list(harder))])
