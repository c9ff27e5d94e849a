"""The margin of some images, step after step of an attack: what an audit's page draws."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from robustbench_cli.attacks import IterativeAttack, Observation, Stage, State, Task
from robustbench_cli.core.losses import margin
from robustbench_cli.evaluation.attack_loop import run_stage
from robustbench_cli.evaluation.eval_context import EvalContext
from robustbench_cli.evaluation.search_model import SearchModel
from robustbench_cli.runs.audit_result import LossCurve

MOST_POINTS = 200
"""Points of a curve; of longer attacks every so many steps are kept."""


@dataclass(frozen=True, kw_only=True)
class WatchedSearchModel(SearchModel):
    """A search model that remembers the margin of each example at each step of an attack."""

    seen: dict[tuple[int, int], float] = field(default_factory=dict)
    """Margins by the example's id and the step."""

    def observe(
        self, attack: IterativeAttack, state: State, task: Task, step_index: Tensor
    ) -> tuple[Observation, int, int | Tensor]:
        """Observe the model as a search model does, and keep the margins (see there)."""
        observation, forwards, backwards = super().observe(attack, state, task, step_index)
        counts = attack.counts(state, step_index)
        inside = task.threat.inside(state["x"].detach(), task.x)
        margins = torch.where(counts & inside, margin(observation.logits, task.y), -torch.inf)
        rows = zip(task.noise.ids.tolist(), step_index.tolist(), margins.tolist(), strict=True)
        self.seen.update({(example, step): value for example, step, value in rows})
        return observation, forwards, backwards


def margin_curve(label: str, stage: Stage, rows: Tensor, context: EvalContext) -> LossCurve | None:
    """Return the best margin so far of some examples, on average, at each step of one stage.

    The attack goes on after a success.

    Args:
        label: of the attack, for the legend.
        stage: one restart or target of it; stages on views and of other libraries have no curve.
        rows: the positions of the examples (B).
        context: of the evaluation's attacks.

    Returns:
        None where there is nothing to draw.
    """
    if stage.view is not None or not isinstance(stage.attack, IterativeAttack) or not len(rows):
        return None
    plain = context.search_model
    watched = WatchedSearchModel(
        **{name: getattr(plain, name) for name in SearchModel.__dataclass_fields__}
    )
    context = replace(context, search_model=watched, early_stop=False)
    for _ in run_stage(stage, rows, context):
        pass
    x = context.data.images(rows)
    logits = context.verifier.logits(x)
    span = (logits.amax(1) - logits.amin(1)).clamp_min(1e-12).cpu()
    steps = 1 + max(step for _, step in watched.seen)
    table = torch.full((len(rows), steps), -torch.inf)
    places = {int(example): place for place, example in enumerate(context.noise.ids[rows])}
    for (example, step), value in watched.seen.items():
        table[places[example], step] = value
    best = table.cummax(1).values
    shares = (best > 0).float().mean(0)
    means = (best / span[:, None]).mean(0)
    kept = [i for i in range(steps) if bool(means[i].isfinite())]
    kept = kept[:: max(1, len(kept) // MOST_POINTS)]
    return LossCurve(
        label=label,
        images=len(rows),
        steps=kept,
        margins=[float(means[i]) for i in kept],
        broken=[float(shares[i]) for i in kept],
    )
