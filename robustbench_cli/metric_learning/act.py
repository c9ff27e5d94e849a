"""ACT: anti-collapse triplets (Zhou, Wang, Niu, Zhang, Zheng and Hua, 2024).

https://arxiv.org/abs/2106.03614
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_cli.metric_learning import (
    METRIC_DEFENSES,
    MetricStep,
    RobustMetricDefense,
    Triplets,
)
from robustbench_cli.metric_learning._mining import mined
from robustbench_cli.metric_learning._perturbed import distances, moved


def nearness(z: Tensor, _: Tensor) -> Tensor:
    """Return minus the distance of each positive to its negative (T).

    Args:
        z: embeddings of T positives, then of their T negatives (2T, D).
    """
    positive, negative = z.chunk(2)
    return -distances(positive, negative)


@METRIC_DEFENSES.register("act")
@dataclass(frozen=True, kw_only=True)
class ACT(RobustMetricDefense):
    """Positive and negative are moved towards each other; the loss has to part them again.

    The anchor stays clean, and the attack has no random start.
    """

    def objective(self, step: MetricStep) -> Tensor:
        z, margin = step.clean_embeddings(), self.margin_for(step.unit)
        chosen = mined(self.miner, z, step.y, margin=margin, unit=step.unit, key=step.key)
        pairs = torch.cat([chosen.positive, chosen.negative])
        threat, noise = step.threat, step.noise.only(pairs)
        x_adv = moved(step.model, nearness, z, step.x[pairs], threat, noise, self.climb)
        whole = step.model(torch.cat([step.x[chosen.anchor], x_adv]))
        labels = torch.cat([step.y[rows] for rows in chosen])
        placed = Triplets.stacked(len(chosen.anchor), step.y.device)
        return self.of_triplets(step, whole, labels, placed)
