"""The one loop that drives every attack: slots that are refilled as examples are done with.

A fixed number of examples is under attack at a time.  One that is broken, or has had its last
look, makes room for the next, so that the model always sees full batches.  What an example goes
through depends on nothing but itself: its noise is keyed, its loss is summed, its verdict alone.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustbench_cli.attacks import Attack, Examples, Look, Search, Stage, State, Task, Whole
from robustbench_cli.core.domain_weights import least_wrong
from robustbench_cli.core.errors import RunError, UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.losses import margin
from robustbench_cli.core.threat import Masked, over
from robustbench_cli.evaluation.active_batch import Found, Table
from robustbench_cli.evaluation.out_of_memory import halving
from robustbench_cli.evaluation.search_model import Lens, Meter
from robustbench_cli.evaluation.verifier import Judge

REFILL = 8
"""Slots are refilled when one in so many is free: beginning an attack has a price of its own."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """Everything a stage works on."""

    data: Examples
    judge: Judge
    lens: Lens
    """The model the search looks through."""
    noise: Noise
    """For all examples: ``noise.ids`` counts them."""
    slots: int = 256
    stop: bool = True
    """Whether an example is done when it is broken; False: go on for the highest margin, as an
    attack that will be tried on another model must."""
    target: Judge | None = None
    """Who decides about the images in the end, if they are crafted on another model."""
    note: Callable[[str], None] = lambda _text: None


def run(stage: Stage, rows: Tensor, field: Field) -> Iterator[Found]:
    """Attack the examples ``rows``; yield what became of them, in whatever order they are done.

    When memory runs out the slots are halved and the examples in them begin again.

    Raises:
        UserError: logits that are not finite.
        RunError: an attack that breaks its contract.
    """

    def stream(left: Tensor, slots: int) -> Iterator[Found]:
        return _stream(stage, left, replace(field, slots=slots))

    return halving(stream, rows, field.slots, field.note)


def _stream(stage: Stage, rows: Tensor, field: Field) -> Iterator[Found]:
    attack = stage.attack
    if isinstance(attack, Whole):
        for part in torch.split(rows, field.slots):
            yield _at_once(attack, part, _task(stage, part, field), field)
        return
    assert isinstance(attack, Search), f"{attack} is neither a Search nor a Whole"
    room = max(1, field.slots // (1 + attack.probes))
    table = _begin(attack, rows[:room], _task(stage, rows[:room], field))
    queue, turn = rows[room:], 0
    while True:
        table, turn = _looked(attack, table, field), turn + 1
        if turn % field.lens.patience or _quiet(table, field.judge):
            continue
        table, found = _leaving(attack, table, field)
        if found is not None:
            yield found
        left = table.alive.nonzero().squeeze(1)
        alive = len(left)
        if not alive and not len(queue):
            return
        free = room - alive
        refill = len(queue) > 0 and (free >= max(1, room // REFILL) or not alive)
        # Dead rows keep the batch's shape where that matters, until there is something to save.
        if alive < len(table.alive) and (refill or alive <= field.lens.compact * len(table.alive)):
            table = table.only(left)
        if refill:
            fresh = _begin(attack, queue[:free], _task(stage, queue[:free], field))
            table, queue = (table.joined(fresh) if alive else fresh), queue[free:]


def _quiet(table: Table, judge: Judge) -> bool:
    """Whether all go on: no row had its last look, a success, or logits that are no numbers."""
    return not judge.random and bool((table.alive & ~table.peak.isnan()).all())


def _task(stage: Stage, rows: Tensor, field: Field) -> Task:
    x, y = field.data.images(rows), field.data.y[rows]
    source = field.noise.only(rows).fork(stage.key).fork(f"restart {stage.lane}")
    return Task(
        x=x,
        y=y,
        clean=field.judge.logits(x),
        threat=field.judge.threat.only(rows),
        noise=source,
        lane=stage.lane,
        data=field.data,
    )


def _begin(attack: Search, rows: Tensor, task: Task) -> Table:
    none = torch.zeros_like(rows)
    low = torch.full_like(rows, -torch.inf, dtype=task.clean.dtype)
    return Table(
        task=task,
        state=_kept_to(attack, attack.begin(task), task, none),
        rows=rows,
        taken=none,
        alive=torch.ones_like(none, dtype=torch.bool),
        here=torch.ones_like(none, dtype=torch.bool),
        peak=low,
        peak_x=task.x,
        peak_step=none - 1,
        tried=torch.zeros_like(low),
        forwards=none + 1,  # the clean logits
        backwards=none,
    )


def _looked(attack: Search, table: Table, field: Field) -> Table:
    """One pass of the model over all slots, what is to be remembered of it, and the next step."""
    task, state, taken = table.task, table.state, table.taken
    look, forwards, backwards = field.lens.look(attack, state, task, taken)
    x = state["x"]
    score, wrong = _score(attack, look, x, task, final=field.stop and not field.judge.random)
    # Logits that are not finite must stop the run at the next check, whoever is shown them: the
    # difference is zero for all others.
    score = score + (look.logits - look.logits).flatten(1).sum(1)
    better = table.alive & attack.counts(state, taken) & ~(score <= table.peak)
    last = attack.over(state, taken)
    first = better & wrong if attack.minimal else better & wrong & (table.peak_step < 0)
    return replace(
        table,
        state=_kept_to(attack, attack.move(state, look, task), task, taken + 1),
        taken=taken + 1,
        alive=table.alive & ~(last | (better & (score == torch.inf))),
        peak=torch.where(better, score, table.peak),
        peak_x=torch.where(over(better, x), x, table.peak_x),
        peak_step=torch.where(first, taken, table.peak_step),
        forwards=table.forwards.add(table.alive, alpha=forwards),
        backwards=table.backwards.add(table.alive, alpha=backwards),
    )


def _kept_to(attack: Search, state: State, task: Task, taken: Tensor) -> State:
    """The state with clean pixels where nothing may change, in probes and in images that count.

    What does not count is the attack's own business: it may be an image of something else.
    """
    if not isinstance(task.threat, Masked):
        return state
    x = task.threat.restored(state["x"], task.x)
    kept = {"x": torch.where(over(attack.counts(state, taken), x), x, state["x"])}
    if attack.probes:
        kept["probes"] = task.threat.restored(state["probes"], task.x)
    return {**state, **kept}


def _score(
    attack: Search, look: Look, x: Tensor, task: Task, *, final: bool
) -> tuple[Tensor, Tensor]:
    """How good an image is, the higher the better; with ``final``, infinite where it is wrong."""
    logits, y = least_wrong(look.logits, task.y)
    wrong = logits.argmax(1) != y
    if attack.minimal:
        return torch.where(wrong, -task.threat.distance(x, task.x).to(logits), -torch.inf), wrong
    gap = look.loss if attack.sees == "logits" else margin(logits, y)
    if attack.roams:
        inside = task.threat.inside(x, task.x)
        gap, wrong = torch.where(inside, gap, -torch.inf), wrong & inside
    return (torch.where(wrong, torch.inf, gap) if final else gap), wrong


def _leaving(attack: Search, table: Table, field: Field) -> tuple[Table, Found | None]:
    """Take the finished rows out, after the judge has looked at what they claim."""
    lost = table.peak.isnan()
    if bool(lost.any()):
        if bool(table.peak_x[lost].isnan().any()):  # no wonder, and not the model's fault
            raise RunError("the attack made NaN pixels")
        raise UserError("the model returned NaN or infinite logits; no verdict is possible")
    table = _confirmed(attack, table, field)
    rows = (table.here & ~table.alive).nonzero().squeeze(1)
    if not len(rows):
        return table, None
    gone = table.only(rows)
    found = _verdicts(attack, gone, field)
    return replace(table, here=table.here & table.alive), found


def _confirmed(attack: Search, table: Table, field: Field) -> Table:
    """Rows whose success the judge denies go on; those of a randomised model that it grants end."""
    if attack.minimal or not field.stop:
        return table
    claims = (table.here & (table.peak > table.tried)).nonzero().squeeze(1)
    if not len(claims):
        return table
    task = table.task
    stored = task.threat.only(claims).stored(table.peak_x[claims], task.x[claims])
    granted = field.judge.broken(stored, task.y[claims])
    table.forwards[claims] += field.judge.passes
    denied = claims[~granted]
    if field.judge.random:
        table.alive[claims[granted]] = False
        table.tried[denied] = table.peak[denied]
    else:
        # On the boundary, as far as anyone can tell; ``over`` ends it if its time has come.
        table.peak[denied] = 0
        table.peak_step[denied] = -1
        table.alive[denied] = ~attack.over(table.state, table.taken - 1)[denied]
    return table


def _verdicts(attack: Search, table: Table, field: Field) -> Found:
    found = _judged(attack, table.peak_x, table.peak > -torch.inf, table.rows, table.task, field)
    return replace(
        found,
        margin=table.peak.float().cpu(),
        flat=attack.flat(table.state).cpu(),
        told=attack.told(table.state).cpu(),
        step=torch.where(found.broken, table.peak_step.cpu(), -1),
        forwards=found.forwards + table.forwards.cpu(),
        backwards=table.backwards.cpu(),
    )


def _at_once(attack: Whole, rows: Tensor, task: Task, field: Field) -> Found:
    """A foreign attack runs its batch to the end; only the judge is ours."""
    meter = Meter(field.judge.model)
    crafted = attack.craft(meter, task).detach().to(task.x)
    found = _judged(attack, crafted, torch.ones_like(rows, dtype=torch.bool), rows, task, field)
    # The batch's price, shared out evenly.
    spent, back = (-(-images // len(rows)) for images in (meter.forwards, meter.backwards))
    return replace(found, forwards=found.forwards + spent, backwards=found.backwards + back)


def _judged(
    attack: Attack, x: Tensor, hit: Tensor, rows: Tensor, task: Task, field: Field
) -> Found:
    """The verdict on the best images, ``hit`` (B) of which an attack claims to be of any use."""
    judge = replace(field.judge, threat=task.threat)
    if not attack.minimal:
        x = task.threat.stored(x, task.x)
        verdict = judge.verdict(x, task.x, task.y)
        return Found.judged(rows, x, task.threat.distance(x, task.x), verdict)
    x, passes = _nudged(x, task, hit, judge)
    verdict = judge.verdict(x, task.x, task.y, bounded=False)
    broken = verdict.broken & hit
    norm = torch.where(broken, task.threat.distance(x, task.x), torch.inf)
    found = Found.judged(rows, x, norm, verdict._replace(broken=broken, margin=-norm))
    return replace(found, forwards=found.forwards + passes.cpu())


def _nudged(x: Tensor, task: Task, hit: Tensor, judge: Judge) -> tuple[Tensor, Tensor]:
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
        left = left[judge.logits(x[left]).argmax(1) == task.y[left]]
        further = task.x[left] + (1 + share) * (x[left] - task.x[left])
        x[left] = further.clamp(0, 1)
    return x, passes
