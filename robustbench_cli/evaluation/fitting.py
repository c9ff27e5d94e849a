"""Fitting an attack to training images, before it sees any example of the evaluation."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from robustbench_cli.attacks import (
    FitResult,
    FitSubject,
    FittedAttack,
    IterativeAttack,
    Stage,
)
from robustbench_cli.core.errors import RunError, UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.examples import Examples
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.attack_loop import run_stage
from robustbench_cli.evaluation.eval_context import EvalContext, Fitter
from robustbench_cli.evaluation.search_model import SearchModel
from robustbench_cli.evaluation.tensors import Tensors
from robustbench_cli.models.rejecting import shown_logits


class FitRound(NamedTuple):
    """What is known after a round of fitting."""

    done: int
    """Rounds that are through."""
    of: int
    """The largest number of them."""
    last: bool
    fitted: FitResult


def fitted_context(
    number: int, stage: Stage, context: EvalContext, exact: SearchModel
) -> tuple[EvalContext, int, int]:
    """Return the context of a stage, with what its attack has fitted.

    Every process calls it for every stage, whether or not it has examples to attack.

    Returns:
        The context, and this process's share of the forward and backward passes of fitting.

    Raises:
        UserError: there are no training images to fit to.
    """
    if not isinstance(stage.attack, FittedAttack):
        return context, 0, 0
    if context.fit is None:
        raise UserError(
            f"attack {stage.member!r} is fitted to training images, and there are none here: "
            "evaluate it on a data set, with advbench eval"
        )
    fitted = context.fit(number, stage, replace(context, search_model=exact))
    return replace(context, fitted=fitted.state), fitted.forwards, fitted.backwards


def fit_rounds(
    stage: Stage, data: Examples, ids: Tensor, context: EvalContext, known: FitRound | None = None
) -> Iterator[FitRound]:
    """Fit the attack of a stage round by round.

    Args:
        data: the training images.
        ids: their ids (N, int64), which key random numbers.
        context: of the evaluation; its model is the one that is fitted to.
        known: what an interrupted run has left; None: it begins.

    Raises:
        UserError: no training image can be used, or logits are not finite.
    """
    attack = stage.attack
    assert isinstance(attack, FittedAttack)
    cost = _Cost(known.fitted if known else FitResult({}))
    subject = _subject(attack, stage, data, ids, context, cost)
    of = attack.rounds(len(subject.rows))
    state = known.fitted.state if known else attack.fit_begin(subject)
    for index in range(known.done if known else 0, of):
        state = attack.fit_round(subject, state, index)
        cost.check_logits()
        if not all(bool(each.isfinite().all()) for each in state.values()):
            raise RunError(f"attack {stage.member!r} fitted numbers that are not finite")
        last = index + 1 == of or attack.fitted_enough(state)
        yield FitRound(index + 1, of, last, FitResult(state, cost.forwards, cost.backwards))
        if last:
            return


def fit_in_memory(data: Examples) -> Fitter:
    """Return what fits attacks to these images and keeps nothing on disk."""

    def fit(_number: int, stage: Stage, context: EvalContext) -> FitResult:
        ids = torch.arange(len(data.y), device=data.y.device)
        *_, last = fit_rounds(stage, data, ids, context)
        return last.fitted

    return fit


@dataclass
class _Cost:
    """The passes of fitting, counted in images, and whether their logits were finite."""

    before: FitResult

    def __post_init__(self) -> None:
        self.forwards, self.backwards = self.before.forwards, self.before.backwards
        self._not_finite: Tensor | None = None

    def note_logits(self, logits: Tensor) -> None:
        """Remember on the device whether all logits so far are finite."""
        found = ~logits.isfinite().all()
        self._not_finite = found if self._not_finite is None else self._not_finite | found

    def check_logits(self) -> None:
        """Raise ``UserError`` if any logit was not finite; it waits for the device."""
        if self._not_finite is not None and bool(self._not_finite):
            raise UserError("the model returned NaN or infinite logits; nothing can be fitted")


def _subject(
    attack: FittedAttack,
    stage: Stage,
    data: Examples,
    ids: Tensor,
    context: EvalContext,
    cost: _Cost,
) -> FitSubject:
    target = attack.target
    usable = torch.arange(len(data.y), device=data.y.device)
    if isinstance(target, int):
        usable = usable[data.y != target]
    noise = Noise(context.noise.seed, ids).fork(stage.key).fork("fit")
    drawn = noise.only(usable).fork("images").uniform(torch.zeros(len(usable), 1)).squeeze(1)
    rows = usable[drawn.argsort(stable=True).to(usable.device)[: attack.fit]]
    if not len(rows):
        raise UserError(f"attack {stage.member!r}: no training image to fit it to")
    aims = torch.full_like(data.y[rows], target) if isinstance(target, int) else data.y[rows]
    return FitSubject(
        data=data,
        rows=rows,
        threat=context.threat,
        noise=noise.only(rows),
        logits=_counted_logits(context, cost),
        craft=_crafting(context, cost),
        aims=aims,
        targeted=target is not None,
        batch_size=context.slots,
    )


def _counted_logits(context: EvalContext, cost: _Cost) -> Callable[[Tensor, Tensor], Tensor]:
    def logits(x: Tensor, aims: Tensor) -> Tensor:
        cost.forwards += len(x)
        cost.backwards += len(x) * (torch.is_grad_enabled() and x.requires_grad)
        model = context.verifier.model
        found = model(x).float()
        found = found if context.verifier.towards else shown_logits(model, found, aims)
        cost.note_logits(found.detach())
        return found

    return logits


def _crafting(
    context: EvalContext, cost: _Cost
) -> Callable[[IterativeAttack, Threat, Tensor, Tensor, Noise], Tensor]:
    def craft(
        attack: IterativeAttack, threat: Threat, x: Tensor, y: Tensor, noise: Noise
    ) -> Tensor:
        there = replace(context, data=Tensors(x, y), threat=threat, noise=noise)
        crafted = x.clone()
        rows = torch.arange(len(x), device=x.device)
        for found in run_stage(Stage("fit", attack, 0), rows, there):
            crafted[found.rows.to(x.device)] = found.x.to(x)
            cost.forwards += int(found.forwards.sum())
            cost.backwards += int(found.backwards.sum())
        return crafted

    return craft


def charge_fit(
    arrays: dict[str, np.ndarray],
    attacked: np.ndarray,
    standing: int,
    forwards: int,
    backwards: int,
) -> None:
    """Divide the passes of fitting among the examples that stand, in place; rounded up.

    Args:
        arrays: of the attack's verdicts: ``forwards`` and ``backwards`` (N).
        attacked: the examples to charge (N, bool), those that are attacked now.
        standing: the number of examples that the attack is for, before and after interruptions.
        forwards: passes of fitting.
        backwards: the same.
    """
    arrays["forwards"][attacked] += -(-forwards // max(1, standing))
    arrays["backwards"][attacked] += -(-backwards // max(1, standing))
