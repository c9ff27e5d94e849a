"""The one loop that drives every attack, over a batch whose slots are refilled.

A fixed number of examples is under attack at a time.  An example that is broken, or has had its
last pass, leaves its slot to the next one, so that the model is always shown full batches.  The
result of an example depends on nothing but itself: its random numbers are keyed by its position in
the data, its loss is summed and not averaged, and it is judged by itself.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from robustbench_cli.attacks import (
    ExternalAttack,
    IterativeAttack,
    Observation,
    Stage,
    State,
    Task,
)
from robustbench_cli.core.domain_weights import least_wrong
from robustbench_cli.core.errors import RunError, UserError
from robustbench_cli.core.free_looks import surely_all, surely_finite, surely_none
from robustbench_cli.core.losses import margin
from robustbench_cli.core.threat import Masked, over
from robustbench_cli.evaluation.active_batch import ActiveBatch, StageResult
from robustbench_cli.evaluation.eval_context import EvalContext
from robustbench_cli.evaluation.external_images import craft_images
from robustbench_cli.evaluation.final_verdicts import judge_best_images
from robustbench_cli.evaluation.meter import Meter
from robustbench_cli.evaluation.out_of_memory import halving
from robustbench_cli.evaluation.verifier import Verifier

REFILL = 8
"""Slots are refilled once one in so many is free: starting an attack costs passes of its own."""


def run_stage(stage: Stage, rows: Tensor, context: EvalContext) -> Iterator[StageResult]:
    """Attack the examples at the positions ``rows`` (B); yield results in the order they are done.

    When memory runs out, the slots are halved and the examples in them begin again.  When the time
    of a budget is over, those under attack are given up and have no result.

    Raises:
        UserError: the model's logits are not finite.
        RunError: the attack made pixels that are NaN or not allowed.
    """

    def run(waiting: Tensor, slots: int) -> Iterator[StageResult]:
        if isinstance(stage.attack, ExternalAttack):
            return _run_external(stage.attack, stage, waiting, replace(context, slots=slots))
        assert isinstance(stage.attack, IterativeAttack), stage.attack
        return _run_iterative(stage.attack, stage, waiting, replace(context, slots=slots))

    return halving(run, rows, context.slots, context.note)


def _run_iterative(
    attack: IterativeAttack, stage: Stage, rows: Tensor, context: EvalContext
) -> Iterator[StageResult]:
    search_model = context.search_model
    slots = max(1, context.slots // (1 + attack.probes))
    batch = _start(attack, stage, rows[:slots], context)
    waiting, passes = rows[slots:], 0
    while not context.allowance.expired:
        batch, passes = _advance(attack, batch, context), passes + 1
        if passes % search_model.check_every or _all_go_on(batch, context.verifier):
            continue
        batch, result = _report_finished(attack, batch, context)
        if result is not None:
            yield result
        alive = batch.alive.nonzero().squeeze(1)
        if not len(alive) and not len(waiting):
            return
        free = slots - len(alive)
        refill = len(waiting) > 0 and (free >= max(1, slots // REFILL) or not len(alive))
        # Finished rows stay in the batch where a constant shape is fast, until enough are free.
        few = len(alive) <= search_model.shrink_below * len(batch.alive)
        if len(alive) < len(batch.alive) and (refill or few):
            batch = batch.only(alive)
        if refill:
            started = _start(attack, stage, waiting[:free], context)
            batch = batch.joined(started) if len(alive) else started
            waiting = waiting[free:]


def _run_external(
    attack: ExternalAttack, stage: Stage, rows: Tensor, context: EvalContext
) -> Iterator[StageResult]:
    """Run another library's attack batch by batch, each to its end, and judge its images."""
    for part in torch.split(rows, context.slots):
        if context.allowance.expired:
            return
        task, meter = make_task(stage, part, context), Meter(context.verifier.model)
        x_adv = craft_images(attack, meter, task, context.search_model.rejection)
        usable = torch.ones_like(part, dtype=torch.bool)
        result = judge_best_images(attack, x_adv, usable, part, task, context.verifier)
        # The batch's cost in passes, divided evenly and rounded up.
        forwards, backwards = (-(-n // len(part)) for n in (meter.forwards, meter.backwards))
        told = attack.report(Meter(context.verifier.model), result.x.to(task.x), task)
        result = replace(result, forwards=result.forwards + forwards, diagnostics=told.cpu())
        yield replace(result, backwards=result.backwards + backwards)


def make_task(stage: Stage, rows: Tensor, context: EvalContext) -> Task:
    """Return the task of a stage for the examples at these positions (B, int64)."""
    x, aims = context.data.images(rows), context.aims(rows)
    towards = context.classes_to_reach is not None
    noise = context.noise.only(rows).fork(stage.key).fork(f"restart {stage.restart_or_target}")
    return Task(
        x=x,
        y=torch.zeros_like(aims) if towards else aims,
        clean=context.verifier.attacked_logits(x, aims, noise.fork("clean")),
        threat=context.threat.only(rows),
        noise=noise,
        restart_or_target=stage.restart_or_target,
        data=context.data if context.others is None else context.others,
        target=aims if towards else None,
        class_order=None if context.class_order is None else context.class_order[rows],
        fitted=context.fitted,
    )


def _start(
    attack: IterativeAttack, stage: Stage, rows: Tensor, context: EvalContext
) -> ActiveBatch:
    """The batch of these examples before the first pass over their starting points."""
    task = make_task(stage, rows, context)
    zeros = torch.zeros_like(rows)
    lowest = torch.full_like(rows, -torch.inf, dtype=task.clean.dtype)
    return ActiveBatch(
        task=task,
        state=_with_mask(attack, attack.begin(task), task, zeros),
        rows=rows,
        step_index=zeros,
        alive=torch.ones_like(zeros, dtype=torch.bool),
        unreported=torch.ones_like(zeros, dtype=torch.bool),
        best_score=lowest,
        best_x=task.x,
        best_step=zeros - 1,
        refused_score=torch.zeros_like(lowest),
        forwards=zeros + 1,  # the clean logits
        backwards=zeros,
    )


def _advance(attack: IterativeAttack, batch: ActiveBatch, context: EvalContext) -> ActiveBatch:
    """One pass over all slots: observe, remember the best image, and take the attack's step."""
    task, state, step_index = batch.task, batch.state, batch.step_index
    observation, forwards, backwards = context.search_model.observe(attack, state, task, step_index)
    x = state["x"]
    wrong_is_final = context.early_stop and not context.verifier.random
    judged = observation
    if not context.search_model.faithful:  # the search follows one model, another one is attacked
        noise = task.noise.fork("answer").at(step_index)
        logits, forwards = context.verifier.unchecked_logits(x, task.aim, noise), forwards + 1
        judged = observation._replace(logits=logits, loss=margin(logits, task.y))
    score, wrong = _score(attack, judged, x, task, wrong_is_final=wrong_is_final)
    if not surely_finite(judged.logits):
        # Logits that are not finite make the score NaN, which stops the run at the next check;
        # for all others zero is added.
        score = score + (judged.logits * 0).flatten(1).sum(1)
    better = batch.alive & attack.counts(state, step_index) & ~(score <= batch.best_score)
    none_better = surely_none(better)
    alive, best_step = batch.alive & ~attack.over(state, step_index), batch.best_step
    if wrong is not None:
        success = better & wrong if attack.minimal else better & wrong & (best_step < 0)
        best_step = torch.where(success, step_index, best_step)
        alive = alive & ~(better & (score == torch.inf))
    shown = observation.decisions if attack.access == "decision" else observation
    after = step_index + 1
    return replace(
        batch,
        state=_with_mask(attack, attack.move(state, shown, task), task, after),
        step_index=after,
        alive=alive,
        best_score=torch.where(better, score, batch.best_score),
        best_x=batch.best_x if none_better else torch.where(over(better, x), x, batch.best_x),
        best_step=best_step,
        forwards=batch.forwards.add(batch.alive, alpha=forwards),
        backwards=batch.backwards + batch.alive * backwards,
    )


def _score(
    attack: IterativeAttack,
    observation: Observation,
    x: Tensor,
    task: Task,
    *,
    wrong_is_final: bool,
) -> tuple[Tensor, Tensor | None]:
    """Score the images that were observed, the higher the better.

    Returns:
        The score (B): the margin, infinite for a misclassified image where ``wrong_is_final``; of a
        minimal attack minus the distance of a misclassified image.  And whether each image is a
        success (B, bool); None: none of them is.
    """
    logits, y = least_wrong(observation.logits, task.y)
    if attack.minimal:
        wrong = logits.argmax(1) != y
        return torch.where(wrong, -task.threat.distance(x, task.x).to(logits), -torch.inf), wrong
    score = observation.loss if attack.black_box else margin(logits, y)
    inside = task.threat.inside(x, task.x) if attack.leaves_ball(task.threat) else None
    held = score if inside is None else torch.where(inside, score, -torch.inf)
    if surely_all(score < 0):
        return held, None
    wrong = logits.argmax(1) != y  # not every tie of two classes is an error
    wrong = wrong if inside is None else wrong & inside
    return (held.masked_fill(wrong, torch.inf) if wrong_is_final else held), wrong


def _with_mask(attack: IterativeAttack, state: State, task: Task, step_index: Tensor) -> State:
    """The state with the clean image's pixels where the mask forbids a change.

    It restores the probes, and ``x`` where a success would count.  An image that does not count is
    the attack's own business: feaatt's first one is the target image.
    """
    if not isinstance(task.threat, Masked):
        return state
    x = task.threat.restored(state["x"], task.x)
    masked = {"x": torch.where(over(attack.counts(state, step_index), x), x, state["x"])}
    if attack.probes:
        masked["probes"] = task.threat.restored(state["probes"], task.x)
    return {**state, **masked}


def _all_go_on(batch: ActiveBatch, verifier: Verifier) -> bool:
    """True if no row had its last pass, a success, or logits that are not finite."""
    finite = batch.best_score == batch.best_score  # NaN equals nothing, and infinity itself
    return not verifier.random and bool((batch.alive & finite).all())


def _report_finished(
    attack: IterativeAttack, batch: ActiveBatch, context: EvalContext
) -> tuple[ActiveBatch, StageResult | None]:
    """Let the verifier check claims; return the batch and the results of rows that finished."""
    not_finite = batch.best_score.isnan()
    if bool(not_finite.any()):
        if bool(batch.best_x[not_finite].isnan().any()):  # so the logits are not the model's fault
            raise RunError("the attack made NaN pixels")
        raise UserError("the model returned NaN or infinite logits; no verdict is possible")
    if not attack.minimal and context.early_stop:
        batch = _confirm_claims(attack, batch, context)
    finished = (batch.unreported & ~batch.alive).nonzero().squeeze(1)
    if not len(finished):
        return batch, None
    result = _final_result(attack, batch.only(finished), context)
    return replace(batch, unreported=batch.unreported & batch.alive), result


def _confirm_claims(
    attack: IterativeAttack, batch: ActiveBatch, context: EvalContext
) -> ActiveBatch:
    """Ask the verifier about rows that claim a success; a row whose claim it refuses goes on.

    With a randomised model a row ends only once its claim is confirmed.
    """
    claims = (batch.unreported & (batch.best_score > batch.refused_score)).nonzero().squeeze(1)
    if not len(claims):
        return batch
    task, verifier = batch.task, context.verifier
    stored = task.threat.only(claims).stored(batch.best_x[claims], task.x[claims])
    noise = task.noise.only(claims).fork("confirmation").at(batch.step_index[claims])
    confirmed = verifier.broken(stored, task.aim[claims], noise)
    batch.forwards[claims] += verifier.passes
    refused = claims[~confirmed]
    if verifier.random:
        batch.alive[claims[confirmed]] = False
        batch.refused_score[refused] = batch.best_score[refused]
    else:
        # The verifier finds the image right, the search model wrong: it lies on the boundary, so
        # its margin counts as zero.  The row goes on unless it had its last pass.
        batch.best_score[refused] = 0
        batch.best_step[refused] = -1
        batch.alive[refused] = ~attack.over(batch.state, batch.step_index - 1)[refused]
    return batch


def _final_result(attack: IterativeAttack, batch: ActiveBatch, context: EvalContext) -> StageResult:
    """The results of rows that have finished."""
    usable = batch.best_score > -torch.inf
    result = judge_best_images(
        attack, batch.best_x, usable, batch.rows, batch.task, context.verifier
    )
    return replace(
        result,
        margin=result.margin if context.verifier.random else batch.best_score.float().cpu(),
        zero_gradient_at_start=attack.zero_gradient_at_start(batch.state).cpu(),
        diagnostics=attack.diagnostics(batch.state).cpu(),
        step=torch.where(result.broken, batch.best_step.cpu(), -1),
        forwards=result.forwards + batch.forwards.cpu(),
        backwards=batch.backwards.cpu(),
    )
