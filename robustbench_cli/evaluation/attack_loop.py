"""The one loop that drives every attack: slots that are refilled as examples are done with.

A fixed number of examples is under attack at a time.  One that is broken, or has had its last
look, makes room for the next, so that the model always sees full batches.  What an example goes
through depends on nothing but itself: its noise is keyed, its loss is summed, its verdict alone.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustbench_cli.attacks import (
    Attack,
    Examples,
    ExternalAttack,
    IterativeAttack,
    Observation,
    Stage,
    State,
    Task,
)
from robustbench_cli.core.domain_weights import least_wrong
from robustbench_cli.core.errors import RunError, UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.losses import margin
from robustbench_cli.core.threat import Masked, Threat, over
from robustbench_cli.evaluation.active_batch import ActiveBatch, StageResult
from robustbench_cli.evaluation.out_of_memory import halving
from robustbench_cli.evaluation.search_model import Meter, SearchModel
from robustbench_cli.evaluation.verifier import Verifier

REFILL = 8
"""Slots are refilled when one in so many is free: beginning an attack has a price of its own."""


@dataclass(frozen=True, kw_only=True)
class EvalContext:
    """Everything a stage works on."""

    data: Examples
    threat: Threat
    """What attacks may do and verdicts hold them to; with a mask, bound to all of ``data``."""
    verifier: Verifier
    """The model that decides."""
    search_model: SearchModel
    """The model the search looks through."""
    noise: Noise
    """For all examples: ``noise.ids`` counts them."""
    slots: int = 256
    early_stop: bool = True
    """Whether an example is done when it is broken; False: go on for the highest margin, as an
    attack that will be tried on another model must."""
    target: Verifier | None = None
    """Who decides about the images in the end, if they are crafted on another model."""
    note: Callable[[str], None] = lambda _text: None


def run_stage(stage: Stage, rows: Tensor, context: EvalContext) -> Iterator[StageResult]:
    """Attack the examples ``rows``; yield what became of them, in whatever order they are done.

    When memory runs out the slots are halved and the examples in them begin again.

    Raises:
        UserError: logits that are not finite.
        RunError: an attack that breaks its contract.
    """

    def stream(left: Tensor, slots: int) -> Iterator[StageResult]:
        return _stream(stage, left, replace(context, slots=slots))

    return halving(stream, rows, context.slots, context.note)


def _stream(stage: Stage, rows: Tensor, context: EvalContext) -> Iterator[StageResult]:
    attack = stage.attack
    if isinstance(attack, ExternalAttack):
        for part in torch.split(rows, context.slots):
            yield _at_once(attack, part, _task(stage, part, context), context)
        return
    assert isinstance(attack, IterativeAttack), attack
    room = max(1, context.slots // (1 + attack.probes))
    batch = _begin(attack, rows[:room], _task(stage, rows[:room], context))
    queue, turn = rows[room:], 0
    while True:
        batch, turn = _looked(attack, batch, context), turn + 1
        if turn % context.search_model.patience or _quiet(batch, context.verifier):
            continue
        batch, found = _leaving(attack, batch, context)
        if found is not None:
            yield found
        left = batch.alive.nonzero().squeeze(1)
        alive = len(left)
        if not alive and not len(queue):
            return
        free = room - alive
        refill = len(queue) > 0 and (free >= max(1, room // REFILL) or not alive)
        # Dead rows keep the batch's shape where that matters, until there is something to save.
        if alive < len(batch.alive) and (
            refill or alive <= context.search_model.compact * len(batch.alive)
        ):
            batch = batch.only(left)
        if refill:
            fresh = _begin(attack, queue[:free], _task(stage, queue[:free], context))
            batch, queue = (batch.joined(fresh) if alive else fresh), queue[free:]


def _quiet(batch: ActiveBatch, verifier: Verifier) -> bool:
    """Whether all go on: no row had its last look, a success, or logits that are no numbers."""
    return not verifier.random and bool((batch.alive & ~batch.best_score.isnan()).all())


def _task(stage: Stage, rows: Tensor, context: EvalContext) -> Task:
    x, y = context.data.images(rows), context.data.y[rows]
    source = context.noise.only(rows).fork(stage.key).fork(f"restart {stage.restart_or_target}")
    return Task(
        x=x,
        y=y,
        clean=context.verifier.logits(x),
        threat=context.threat.only(rows),
        noise=source,
        restart_or_target=stage.restart_or_target,
        data=context.data,
    )


def _begin(attack: IterativeAttack, rows: Tensor, task: Task) -> ActiveBatch:
    none = torch.zeros_like(rows)
    low = torch.full_like(rows, -torch.inf, dtype=task.clean.dtype)
    return ActiveBatch(
        task=task,
        state=_kept_to(attack, attack.begin(task), task, none),
        rows=rows,
        step_index=none,
        alive=torch.ones_like(none, dtype=torch.bool),
        here=torch.ones_like(none, dtype=torch.bool),
        best_score=low,
        best_x=task.x,
        best_step=none - 1,
        tried=torch.zeros_like(low),
        forwards=none + 1,  # the clean logits
        backwards=none,
    )


def _looked(attack: IterativeAttack, batch: ActiveBatch, context: EvalContext) -> ActiveBatch:
    """One pass of the model over all slots, what is to be remembered of it, and the next step."""
    task, state, step_index = batch.task, batch.state, batch.step_index
    observation, forwards, backwards = context.search_model.observe(attack, state, task, step_index)
    x = state["x"]
    score, wrong = _score(
        attack, observation, x, task, final=context.early_stop and not context.verifier.random
    )
    # Logits that are not finite must stop the run at the next check, whoever is shown them: the
    # difference is zero for all others.
    score = score + (observation.logits - observation.logits).flatten(1).sum(1)
    better = batch.alive & attack.counts(state, step_index) & ~(score <= batch.best_score)
    last = attack.over(state, step_index)
    first = better & wrong if attack.minimal else better & wrong & (batch.best_step < 0)
    return replace(
        batch,
        state=_kept_to(attack, attack.move(state, observation, task), task, step_index + 1),
        step_index=step_index + 1,
        alive=batch.alive & ~(last | (better & (score == torch.inf))),
        best_score=torch.where(better, score, batch.best_score),
        best_x=torch.where(over(better, x), x, batch.best_x),
        best_step=torch.where(first, step_index, batch.best_step),
        forwards=batch.forwards.add(batch.alive, alpha=forwards),
        backwards=batch.backwards.add(batch.alive, alpha=backwards),
    )


def _kept_to(attack: IterativeAttack, state: State, task: Task, step_index: Tensor) -> State:
    """The state with clean pixels where nothing may change, in probes and in images that count.

    What does not count is the attack's own business: it may be an image of something else.
    """
    if not isinstance(task.threat, Masked):
        return state
    x = task.threat.restored(state["x"], task.x)
    kept = {"x": torch.where(over(attack.counts(state, step_index), x), x, state["x"])}
    if attack.probes:
        kept["probes"] = task.threat.restored(state["probes"], task.x)
    return {**state, **kept}


def _score(
    attack: IterativeAttack, observation: Observation, x: Tensor, task: Task, *, final: bool
) -> tuple[Tensor, Tensor]:
    """How good an image is, the higher the better; with ``final``, infinite where it is wrong."""
    logits, y = least_wrong(observation.logits, task.y)
    wrong = logits.argmax(1) != y
    if attack.minimal:
        return torch.where(wrong, -task.threat.distance(x, task.x).to(logits), -torch.inf), wrong
    gap = observation.loss if attack.access == "logits" else margin(logits, y)
    if attack.leaves_ball:
        inside = task.threat.inside(x, task.x)
        gap, wrong = torch.where(inside, gap, -torch.inf), wrong & inside
    return (torch.where(wrong, torch.inf, gap) if final else gap), wrong


def _leaving(
    attack: IterativeAttack, batch: ActiveBatch, context: EvalContext
) -> tuple[ActiveBatch, StageResult | None]:
    """Take the finished rows out, after the judge has looked at what they claim."""
    lost = batch.best_score.isnan()
    if bool(lost.any()):
        if bool(batch.best_x[lost].isnan().any()):  # no wonder, and not the model's fault
            raise RunError("the attack made NaN pixels")
        raise UserError("the model returned NaN or infinite logits; no verdict is possible")
    batch = _confirmed(attack, batch, context)
    rows = (batch.here & ~batch.alive).nonzero().squeeze(1)
    if not len(rows):
        return batch, None
    gone = batch.only(rows)
    found = _verdicts(attack, gone, context)
    return replace(batch, here=batch.here & batch.alive), found


def _confirmed(attack: IterativeAttack, batch: ActiveBatch, context: EvalContext) -> ActiveBatch:
    """Rows whose success the judge denies go on; those of a randomised model that it grants end."""
    if attack.minimal or not context.early_stop:
        return batch
    claims = (batch.here & (batch.best_score > batch.tried)).nonzero().squeeze(1)
    if not len(claims):
        return batch
    task = batch.task
    stored = task.threat.only(claims).stored(batch.best_x[claims], task.x[claims])
    granted = context.verifier.broken(stored, task.y[claims])
    batch.forwards[claims] += context.verifier.passes
    denied = claims[~granted]
    if context.verifier.random:
        batch.alive[claims[granted]] = False
        batch.tried[denied] = batch.best_score[denied]
    else:
        # On the boundary, as far as anyone can tell; ``over`` ends it if its time has come.
        batch.best_score[denied] = 0
        batch.best_step[denied] = -1
        batch.alive[denied] = ~attack.over(batch.state, batch.step_index - 1)[denied]
    return batch


def _verdicts(attack: IterativeAttack, batch: ActiveBatch, context: EvalContext) -> StageResult:
    found = _judged(
        attack, batch.best_x, batch.best_score > -torch.inf, batch.rows, batch.task, context
    )
    return replace(
        found,
        margin=batch.best_score.float().cpu(),
        zero_gradient_at_start=attack.zero_gradient_at_start(batch.state).cpu(),
        diagnostics=attack.diagnostics(batch.state).cpu(),
        step=torch.where(found.broken, batch.best_step.cpu(), -1),
        forwards=found.forwards + batch.forwards.cpu(),
        backwards=batch.backwards.cpu(),
    )


def _at_once(attack: ExternalAttack, rows: Tensor, task: Task, context: EvalContext) -> StageResult:
    """A foreign attack runs its batch to the end; only the judge is ours."""
    meter = Meter(context.verifier.model)
    crafted = attack.craft(meter, task).detach().to(task.x)
    found = _judged(attack, crafted, torch.ones_like(rows, dtype=torch.bool), rows, task, context)
    # The batch's price, shared out evenly.
    spent, back = (-(-images // len(rows)) for images in (meter.forwards, meter.backwards))
    return replace(found, forwards=found.forwards + spent, backwards=found.backwards + back)


def _judged(
    attack: Attack, x: Tensor, hit: Tensor, rows: Tensor, task: Task, context: EvalContext
) -> StageResult:
    """The verdict on the best images, ``hit`` (B) of which an attack claims to be of any use."""
    verifier, threat = context.verifier, task.threat
    if not attack.minimal:
        x = threat.stored(x, task.x)
        verdict = verifier.verdict(x, task.x, task.y, threat)
        return StageResult.judged(rows, x, task.threat.distance(x, task.x), verdict)
    x, passes = _nudged(x, task, hit, verifier)
    verdict = verifier.verdict(x, task.x, task.y, threat, bounded=False)
    broken = verdict.broken & hit
    norm = torch.where(broken, task.threat.distance(x, task.x), torch.inf)
    found = StageResult.judged(rows, x, norm, verdict._replace(broken=broken, margin=-norm))
    return replace(found, forwards=found.forwards + passes.cpu())


def _nudged(x: Tensor, task: Task, hit: Tensor, verifier: Verifier) -> tuple[Tensor, Tensor]:
    """Move images that rounding keeps from being wrong a hair further out; say at what price.

    The nearest adversarial image lies on the boundary; another batch size may round it back.

    Args:
        hit: which of the images there is anything to say of (B).

    Returns:
        The images, and how often the model was asked about each (B).
    """
    x, passes = x.clone(), torch.zeros_like(task.y)
    left = hit.nonzero().squeeze(1)
    for share in (1e-6, 1e-5, 1e-4, 1e-3):
        if not len(left):
            break
        passes[left] += 1
        left = left[verifier.logits(x[left]).argmax(1) == task.y[left]]
        further = task.x[left] + (1 + share) * (x[left] - task.x[left])
        x[left] = further.clamp(0, 1)
    return x, passes
