"""The normal of a class's border at a point, estimated from predicted classes around it.

Chen et al. (2020), https://arxiv.org/abs/1904.02144, equations 9 and 16; with the special case of
equal answers from the authors' code.
"""

import torch
from torch import Tensor

from robustbench_cli.attacks import State, Task
from robustbench_cli.core.threat import over


def no_answers(x: Tensor) -> State:
    """Return what is known of the normals at B points like ``x`` (B, C, H, W): nothing."""
    images = {"weighted": torch.zeros_like(x), "plain": torch.zeros_like(x)}
    none = torch.zeros_like(x[:, 0, 0, 0])
    return {**images, "weight": none, "asked": none.long()}


def with_answer(state: State, wrong: Tensor, at: Tensor) -> State:
    """Return what is known with the answer to ``x``, which is ``delta`` away from ``point``.

    Args:
        state: ``no_answers``, and ``x`` and ``point`` (B, C, H, W), ``delta`` (B).
        wrong: whether ``x`` is misclassified (B, bool).
        at: the rows (B, bool) that were asked for this; the others stay as they are.
    """
    away = torch.where(over(at, state["x"]), state["x"] - state["point"], 0)
    # As in the authors' code the direction is what clipping to [0, 1] has left of it.
    direction = away / over(torch.where(at, state["delta"], 1), away)
    sign = torch.where(wrong, 1.0, -1.0).to(away) * at
    return {
        "weighted": state["weighted"] + over(sign, away) * direction,
        "plain": state["plain"] + direction,
        "weight": state["weight"] + sign,
        "asked": state["asked"] + at.long(),
    }


def normal(state: State) -> Tensor:
    """Return the normals (B, C, H, W), of any length, towards the misclassified side."""
    mean = state["weight"] / state["asked"].clamp_min(1)
    mean = torch.where(mean.abs() == 1, 0, mean)  # all answers are alike: nothing to subtract
    return state["weighted"] - over(mean, state["plain"]) * state["plain"]


def directions(task: Task, draw: Tensor) -> Tensor:
    """Return random directions (B, C, H, W) of length one in L2, of draw number ``draw`` (B).

    Pixels are normal, or, under Linf, uniform.
    """
    noise, like = task.noise.fork("around").at(draw), task.x
    drawn = noise.normal(like) if task.threat.norm == "L2" else 2 * noise.uniform(like) - 1
    drawn = task.threat.allowed(drawn)
    length = torch.linalg.vector_norm(drawn.flatten(1), dim=1)
    return drawn / over(length.clamp_min(1e-12), like)


def part_way(far: Tensor, task: Task, share: Tensor) -> Tensor:
    """Return the images (B, C, H, W) at a share (B) of the way from the clean ones to ``far``.

    Under L2 on the line; under Linf every pixel of ``far`` is brought to within that share of its
    distance.
    """
    change = far - task.x
    if task.threat.norm == "L2":
        return task.x + over(share, change) * change
    most = over(share * task.threat.distance(far, task.x), change)
    return task.x + change.clamp(-most, most)
