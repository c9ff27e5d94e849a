"""EST: embedding-shifted triplets (Zhou, Niu, Wang, Zhang and Hua, 2020).

https://arxiv.org/abs/2002.11293
"""

from dataclasses import dataclass

from torch import Tensor

from robustbench_cli.metric_learning import METRIC_DEFENSES, MetricStep, RobustMetricDefense
from robustbench_cli.metric_learning._mining import mined
from robustbench_cli.metric_learning._perturbed import shifted


@METRIC_DEFENSES.register("est")
@dataclass(frozen=True, kw_only=True)
class EST(RobustMetricDefense):
    """Every image is moved to where its embedding is far from its own clean one.

    The metric loss is on these images alone, triplets being mined among their embeddings.
    """

    def objective(self, step: MetricStep) -> Tensor:
        clean = step.clean_embeddings()
        x_adv = shifted(step.model, clean, step.x, step.threat, step.noise, self.climb)
        z, margin = step.model(x_adv), self.margin_for(step.unit)
        chosen = mined(self.miner, z, step.y, margin=margin, unit=step.unit, key=step.key)
        return self.of_triplets(step, z, step.y, chosen)
