"""The class that each example is to be made into, and the context of an attack that tries to."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from robustbench_cli.attacks._target import Target
from robustbench_cli.core.errors import UserError
from robustbench_cli.evaluation.eval_context import EvalContext

LEFT_OUT = -1
"""Stands for the target of an example that is left out: its true class is the target, or the model
is wrong about it as it is."""


def check_target(target: Target, classes: int) -> None:
    """Refuse a target that is no class.

    Raises:
        UserError: the number is too large.
    """
    if isinstance(target, int) and target >= classes:
        raise UserError(f"target={target}: the classes are numbered from 0 to {classes - 1}")


def chosen_targets(
    target: Target, context: EvalContext, standing: np.ndarray, classes: int
) -> np.ndarray:
    """Return the class to reach of each example (N, int32), ``LEFT_OUT`` where there is none.

    Args:
        target: a class, or the rule that chooses one.
        context: its verifier's model says which class is the least likely one.  Where images are
            crafted on another model than the one that decides, it is the former: who has to craft
            them there does not see the latter's answers.
        standing: the examples that there is something to do for, a mask (N).
        classes: the number of classes, K.

    Raises:
        UserError: the least likely class of a randomised model is asked for.
    """
    rows = torch.from_numpy(standing.nonzero()[0]).to(context.data.y.device)
    y = context.data.y[rows]
    if isinstance(target, int):
        found = torch.full_like(y, target)
    else:
        found = _RULES[target](context, rows, classes)
    targets = np.full(len(standing), LEFT_OUT, np.int32)
    targets[standing] = torch.where(found == y, LEFT_OUT, found).cpu().numpy()
    return targets


def passes_to_choose(target: Target) -> int:
    """Return the forward passes per example that it takes to choose the class to reach."""
    return int(target == "least-likely")


def note_on_targets(target: Target, context: EvalContext) -> str:
    """Return what is to be said of how the classes to reach were chosen; as a rule nothing."""
    if target != "least-likely" or context.target is None:
        return ""
    return (
        "target=least-likely: the least likely class is that of the source, on which images are "
        "crafted"
    )


def towards(context: EvalContext, targets: np.ndarray) -> EvalContext:
    """Return the context in which a success is the example's target class.

    Args:
        targets: as ``chosen_targets`` returns them.
    """
    y = context.data.y
    return replace(
        context,
        verifier=replace(context.verifier, towards=True),
        target=context.target and replace(context.target, towards=True),
        classes_to_reach=torch.from_numpy(targets).to(y),
    )


def _random(context: EvalContext, rows: Tensor, classes: int) -> Tensor:
    """A wrong class with equal chances, drawn for the example whatever is evaluated beside it."""
    y = context.data.y[rows]
    noise = context.noise.only(rows).fork("random target")
    drawn = noise.uniform(torch.empty(len(rows), 1, dtype=torch.double, device=y.device))
    other = (drawn.squeeze(1) * (classes - 1)).long()
    return other + (other >= y)


def _least_likely(context: EvalContext, rows: Tensor, classes: int) -> Tensor:
    """The class of the smallest logit of the clean image, the first of equal ones (Kurakin et al.,
    2017, https://arxiv.org/abs/1611.01236)."""
    if context.verifier.random:
        raise UserError(
            "target=least-likely: the answers of a randomised model name another class each time"
        )
    parts = [
        context.verifier.logits(context.data.images(part))[:, :classes].argmin(1)
        for part in torch.split(rows, context.slots)
    ]
    return torch.cat([rows[:0], *parts])


def _next(context: EvalContext, rows: Tensor, classes: int) -> Tensor:
    """The class after the true one; after the last one comes the first."""
    return (context.data.y[rows] + 1) % classes


_RULES: Mapping[str, Callable[[EvalContext, Tensor, int], Tensor]] = {
    "random": _random,
    "least-likely": _least_likely,
    "next": _next,
}
"""By rule, from the positions (B) of examples to their targets (B)."""
