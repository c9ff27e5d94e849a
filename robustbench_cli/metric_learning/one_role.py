"""Metric learning with one role of each triplet attacked (Panum et al., 2021).

https://arxiv.org/abs/2102.07265
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from robustbench_cli.core.gradient_ascent import Loss
from robustbench_cli.metric_learning import (
    METRIC_DEFENSES,
    MetricStep,
    RobustMetricDefense,
    Triplets,
)
from robustbench_cli.metric_learning._mining import mined
from robustbench_cli.metric_learning._perturbed import distances, moved

Role = Literal["anchor", "positive", "negative"]


def _anchor(z: Tensor, others: Tensor) -> Tensor:
    """Return by how much the anchor is farther from its positive than from its negative (T)."""
    return distances(z, others[:, 0]) - distances(z, others[:, 1])


_AIMS: Mapping[str, tuple[Loss, Callable[[Tensor, Triplets], Tensor]]] = {
    "anchor": (_anchor, lambda z, t: torch.stack([z[t.positive], z[t.negative]], 1)),
    "positive": (distances, lambda z, t: z[t.anchor]),
    "negative": (lambda z, a: -distances(z, a), lambda z, t: z[t.anchor]),
}
"""What each role's embedding is driven to, and the clean embeddings that it is compared with."""


@METRIC_DEFENSES.register("one-role", positional="role")
@dataclass(frozen=True, kw_only=True)
class OneRole(RobustMetricDefense):
    """One image of every triplet is attacked while the others keep their clean embeddings.

    The positive is driven away from the anchor, the negative towards it, or the anchor away from
    its positive and towards its negative.  The loss is on triplets in which the attacked image has
    taken that place.  Published at eps 0.01 with 5 steps.
    """

    role: Role = "positive"
    """The image that is attacked."""

    def objective(self, step: MetricStep) -> Tensor:
        z, margin = step.clean_embeddings(), self.margin_for(step.unit)
        chosen = mined(self.miner, z, step.y, margin=margin, unit=step.unit, key=step.key)
        place = Triplets._fields.index(self.role)
        rows = chosen[place]
        gain, references = _AIMS[self.role]
        noise = step.noise.only(rows).fork(self.role)
        target = references(z, chosen)
        x_adv = moved(step.model, gain, target, step.x[rows], step.threat, noise, self.climb)
        both = step.model(torch.cat([step.x, x_adv]))
        taken = torch.arange(len(rows), device=rows.device) + len(step.x)
        attacked = chosen._replace(**{self.role: taken})
        return self.of_triplets(step, both, torch.cat([step.y, step.y[rows]]), attacked)
