"""Deep metric learning without a defense: triplets by distance-weighted mining.

Wu et al. (2017), https://arxiv.org/abs/1706.07567; the triplet loss is that of Schroff et al.
(2015), https://arxiv.org/abs/1503.03832, the contrastive one that of Hadsell et al. (2006),
https://doi.org/10.1109/CVPR.2006.100.
"""

from dataclasses import dataclass

from torch import Tensor

from robustbench_cli.metric_learning import METRIC_DEFENSES, MetricDefense, MetricStep
from robustbench_cli.metric_learning._mining import mined


@METRIC_DEFENSES.register("none", aliases=("plain",))
@dataclass(frozen=True, kw_only=True)
class PlainMetric(MetricDefense):
    """The metric loss on clean images, its triplets mined among their embeddings."""

    def objective(self, step: MetricStep) -> Tensor:
        z = step.model(step.x)
        margin = self.margin_for(step.unit)
        chosen = mined(self.miner, z, step.y, margin=margin, unit=step.unit, key=step.key)
        return self.of_triplets(step, z, step.y, chosen)
