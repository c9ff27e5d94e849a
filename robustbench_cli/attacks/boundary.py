"""The Boundary Attack (Brendel et al., 2018), https://arxiv.org/abs/1712.04248.

A decision-based attack: a random walk along the border of the class that comes ever nearer to the
clean image.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, State, Task
from robustbench_cli.attacks._decision import DecisionAttack
from robustbench_cli.core.registry import Number
from robustbench_cli.core.threat import over

CONVERGED = 1e-7
"""The step towards the clean image, as a fraction of the distance, at which the walk ends."""


@ATTACKS.register("boundary", pattern=r"boundary-?(?P<queries>\d+)")
@dataclass(frozen=True, kw_only=True)
class Boundary(DecisionAttack):
    """A random walk along the border of the class; steps that stay wrong and come nearer are kept.

    Each proposal is a random step on the sphere around the clean image, then one towards it (the
    paper's figure 2), of lengths relative to the distance.  Every ``every``-th query asks about the
    first of the two alone: if more than half of those are wrong, the border is flat at this scale
    and both lengths grow, if less than a fifth are, they shrink; the second length also follows the
    share of proposals that are wrong, between 0.1 and 0.25 (both as in Foolbox).

    The shares are taken over ``window`` answers, or as many as a third of that where lengths are
    to grow, and then counted anew: so lengths that are far too short grow within 40 queries.
    Foolbox 3.3.4 counts each tenth proposal only, 100 of the first kind and 30 of the second, so
    that the first length changes once in 1000 queries: on a digits net it is 2.6 times as far off
    after 1000 queries.
    """

    norms: ClassVar[tuple[str, ...]] = ("L2",)

    sphere_step: Annotated[Number, Field(gt=0)] = 0.01
    """The first length of the step on the sphere, as a fraction of the distance (delta)."""
    source_step: Annotated[Number, Field(gt=0)] = 0.01
    """The first length of the step towards the clean image, as that fraction (epsilon)."""
    adaptation: Annotated[Number, Field(gt=1)] = 1.5
    """The factor by which lengths grow or shrink."""
    every: Annotated[int, Field(ge=2)] = 4
    """Of so many queries one asks about the step on the sphere alone."""
    window: Annotated[int, Field(ge=1)] = 30
    """Answers after which a length is reconsidered; it may grow after a third of them."""

    def first(self, task: Task) -> State:
        zero = torch.zeros_like(task.x[:, 0, 0, 0])
        counts = {"sphere asked": zero, "sphere wrong": zero, "asked": zero, "wrong ones": zero}
        lengths = {"sphere": zero + self.sphere_step, "source": zero + self.source_step}
        return {"point": task.x, "entered": zero, **counts, **lengths}

    def walk(self, state: State, wrong: Tensor, task: Task, step_index: Tensor) -> State:
        clean, entered = task.x, state["entered"] > 0
        half = entered & (step_index % self.every == 0)  # the step on the sphere alone
        whole = entered & ~half
        nearer = task.threat.distance(state["x"], clean) < task.threat.distance(
            state["point"], clean
        )
        accepted = wrong & ((whole & nearer) | ~entered)
        point = torch.where(over(accepted, clean), state["x"], state["point"])
        point = torch.where(over(~entered & ~wrong, clean), state["wrong"], point)
        sphere, source = state["sphere"], state["source"]
        flat, counts = _counted(
            state, "sphere asked", "sphere wrong", half, wrong, self.window, 0.5
        )
        near, more = _counted(state, "asked", "wrong ones", whole, wrong, self.window, 0.25)
        factor = self._factor(flat, 0.2, 0.5)
        sphere, source = sphere * factor, source * factor * self._factor(near, 0.1, 0.25)
        half_next = (step_index + 1) % self.every == 0
        noise = task.noise.fork("sphere").at(step_index + 1).normal(clean)
        on_sphere = _rotated(point, clean, sphere, task.threat.allowed(noise))
        # The step towards the clean image makes up for what clipping changed in the distance.
        before, after = (task.threat.distance(each, clean) for each in (point, on_sphere))
        share = ((source * before + after - before) / after.clamp_min(1e-12)).clamp(0, 1)
        share = torch.where(half_next, 0, share)
        x = on_sphere + over(share, clean) * (clean - on_sphere)
        return {
            "x": task.threat.restored(x.clamp(0, 1), clean),
            "point": point,
            "entered": torch.ones_like(state["entered"]),
            "sphere": sphere,
            "source": source,
            **counts,
            **more,
        }

    def _factor(self, share: Tensor, low: float, high: float) -> Tensor:
        """The factor (B) of a length, above 1 where the share (B) is high; of NaN it is 1."""
        up, down = share > high, share < low
        return torch.where(up, self.adaptation, torch.where(down, 1 / self.adaptation, 1.0))

    def over(self, state: State, step_index: Tensor) -> Tensor:
        return super().over(state, step_index) | (state["source"] < CONVERGED)


def _counted(
    state: State, asked: str, found: str, counts: Tensor, wrong: Tensor, window: int, high: float
) -> tuple[Tensor, State]:
    """Count an answer where ``counts`` (B); return the share of wrong ones (B) and the counts.

    The share is NaN but for rows that have just had ``window`` answers, or a third of them with a
    share above ``high``; those begin to count anew.
    """
    total = state[asked] + counts.to(state[asked])
    hits = state[found] + (counts & wrong).to(total)
    share = hits / total.clamp_min(1)
    full = (total >= window) | ((3 * total >= window) & (share > high))
    share = torch.where(full, share, torch.nan)
    return share, {asked: torch.where(full, 0, total), found: torch.where(full, 0, hits)}


def _rotated(point: Tensor, clean: Tensor, angle: Tensor, noise: Tensor) -> Tensor:
    """Images (B, C, H, W) that are as far from the clean ones as the points are, in the box.

    Args:
        angle: the tangent of the angle between the two, seen from the clean images (B).
        noise: directions (B, C, H, W), of which the part along the radius is left out.
    """
    radius = (point - clean).flatten(1)
    length = torch.linalg.vector_norm(radius, dim=1, keepdim=True).clamp_min(1e-12)
    unit, aside = radius / length, noise.flatten(1)
    aside = aside - (aside * unit).sum(1, keepdim=True) * unit
    aside = aside / torch.linalg.vector_norm(aside, dim=1, keepdim=True).clamp_min(1e-12)
    turned = (unit + angle[:, None] * aside) / (1 + angle[:, None] ** 2).sqrt()
    image: Tensor = (clean + (length * turned).view_as(clean)).clamp(0, 1)
    return image
