"""A model under an attack, stage by stage: what is still standing goes on to the next stage."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_cli.attacks import Attack, ExternalAttack, Stage
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.active_batch import StageResult
from robustbench_cli.evaluation.attack_loop import EvalContext, run_stage
from robustbench_cli.evaluation.out_of_memory import halving
from robustbench_cli.evaluation.search_model import (
    COMPARED_IMAGES,
    SearchModel,
    SearchPrecision,
    exact_search_model,
    fastest_search_model,
)
from robustbench_cli.evaluation.verifier import Verifier, unchanged_model

VERDICT_COLUMNS: dict[str, tuple[type[np.generic], float]] = {
    "prediction": (np.int32, -1),
    "share": (np.float32, 0.0),
    "margin": (np.float32, -np.inf),
    "norm": (np.float32, 0.0),
    "step": (np.int32, -1),
    "by": (np.int16, -1),
    "stages": (np.int16, 0),
    "flat": (np.bool_, False),
    "forwards": (np.int64, 0),
    "backwards": (np.int64, 0),
}
"""What is kept per example, and what it is before anything is known."""


@dataclass(frozen=True)
class AttackVerdicts:
    """The verdicts of one attack, one entry per example.

    ``prediction`` and ``norm`` are of the adversarial image, else of the one that came closest to
    being wrong; ``by`` is the stage that broke the example (-1: none), ``stages`` how many it has
    been through, ``flat`` whether one of them found nothing to climb where it began, ``share`` how
    often the prediction is right (0 or 1 unless the model is random).
    """

    arrays: dict[str, np.ndarray]

    @classmethod
    def empty(cls, n: int) -> "AttackVerdicts":
        """Nothing is known yet of ``n`` examples."""
        return cls({name: np.full(n, void, kind) for name, (kind, void) in VERDICT_COLUMNS.items()})

    @property
    def broken(self) -> np.ndarray:
        """Which examples a stage has broken."""
        return np.asarray(self.arrays["by"] >= 0)

    def waiting(self, stage: int, minimal: bool) -> np.ndarray:
        """Which examples are for this stage; the nearest image is wanted of all of them."""
        return (~self.broken | minimal) & (self.arrays["stages"] <= stage)

    def put(self, stage: int, found: StageResult, minimal: bool) -> np.ndarray:
        """Take in what a stage found; say which of its images are the ones to keep."""
        rows, a = found.rows.numpy(), self.arrays
        # The image that counts is the broken one, else the one with the highest margin.
        better = found.margin.numpy() >= a["margin"][rows]
        better = better if minimal else better | found.broken.numpy()
        for name in ("prediction", "share", "margin", "norm", "step"):
            a[name][rows[better]] = getattr(found, name).numpy()[better]
        a["by"][rows[found.broken.numpy() & better]] = stage
        a["stages"][rows] = stage + 1
        a["flat"][rows] |= found.zero_gradient_at_start.numpy()
        a["forwards"][rows] += found.forwards.numpy()
        a["backwards"][rows] += found.backwards.numpy()
        return np.asarray(better)


class Progress(NamedTuple):
    """A stage of an attack, and some examples that are through with it."""

    number: int
    stage: Stage
    found: StageResult
    kept: np.ndarray
    """Which of its images are the best so far."""


def clean(context: EvalContext, rows: Tensor) -> Iterator[StageResult]:
    """The verdicts on the images as they are, batch by batch."""

    def batches(left: Tensor, size: int) -> Iterator[StageResult]:
        for part in torch.split(left, size):
            x, y = context.data.images(part), context.data.y[part]
            verdict = context.verifier.verdict(x, x, y, context.threat.only(part))
            yield StageResult.judged(part, x, torch.zeros_like(part), verdict)

    return halving(batches, rows, context.slots, context.note)


def run_stages(
    stages: list[Stage],
    column: AttackVerdicts,
    standing: np.ndarray,
    context: EvalContext,
    itself: SearchModel,
) -> Iterator[Progress]:
    """Run every stage on what the ones before it left; yield what is found, and keep it.

    Args:
        column: what is known already; it is filled in as the stages go.
        standing: which examples are to be attacked at all (N): those that are right when clean.
        field: what the stages work on.
        itself: the model as it is, for minimal attacks and for whatever was too close to call.
    """
    for index, stage in enumerate(stages):
        waiting = torch.from_numpy(
            (standing & column.waiting(index, stage.attack.minimal)).nonzero()[0]
        )
        rows = waiting.to(context.data.y.device)
        # A nearest adversarial image lies on the boundary, and differences between probes are
        # small: for both only the model itself will do.
        fine = (
            stage.attack.minimal
            or stage.attack.probes > 0
            or isinstance(stage.attack, ExternalAttack)
        )
        search_model = itself if fine else context.search_model
        # What a randomised model's noise leaves in doubt another look would not settle.
        doubt = 0.0 if context.verifier.random else search_model.doubt
        unsure: list[tuple[Tensor, ...]] = []  # rows and what they cost, not their images
        for found in run_stage(stage, rows, replace(context, search_model=search_model)):
            close = ~found.broken & (found.margin > -doubt) & bool(doubt)
            if close.any():
                unsure.append((found.rows[close], found.forwards[close], found.backwards[close]))
                found = _part(found, ~close)
            yield from _kept(column, index, stage, found, context)
        if unsure:
            again, forwards, backwards = map(torch.cat, zip(*unsure, strict=True))
            column.arrays["forwards"][again.numpy()] += forwards.numpy()
            column.arrays["backwards"][again.numpy()] += backwards.numpy()
            for found in run_stage(
                stage, again.to(rows.device), replace(context, search_model=itself)
            ):
                yield from _kept(column, index, stage, found, context)


def _kept(
    column: AttackVerdicts, index: int, stage: Stage, found: StageResult, context: EvalContext
) -> Iterator[Progress]:
    if len(found.rows):
        found = _handed(found, context, stage.attack.minimal) if context.target else found
        kept = column.put(index, found, stage.attack.minimal)
        yield Progress(index, stage, found, kept)


def _handed(found: StageResult, context: EvalContext, minimal: bool) -> StageResult:
    """The target's verdict on images that were crafted on another model."""
    assert context.target is not None
    rows = found.rows.to(context.data.y.device)
    x, y = context.data.images(rows), context.data.y[rows]
    threat, x_adv = context.threat.only(rows), found.x.to(x)
    verdict = context.target.verdict(x_adv, x, y, threat, bounded=not minimal)
    seen = StageResult.judged(rows, x_adv, threat.distance(x_adv, x), verdict)
    if minimal:
        # Nearest is what the target gets wrong, whatever the source says of it.
        norm = torch.where(seen.broken, seen.norm, torch.inf)
        found = replace(found, norm=norm, margin=-norm)
    return replace(
        found,
        broken=seen.broken,
        prediction=seen.prediction,
        share=seen.share,
        step=seen.step,
        forwards=found.forwards + seen.forwards,
    )


def _part(found: StageResult, which: Tensor) -> StageResult:
    return StageResult(**{f.name: getattr(found, f.name)[which] for f in fields(found)})


@dataclass(frozen=True)
class Tensors:
    """Images and labels as attacks want them."""

    x: Tensor
    y: Tensor

    def images(self, rows: Tensor | slice) -> Tensor:
        """The images of these rows."""
        return self.x[rows]


class Attacked(NamedTuple):
    """What an attack made of a batch, row by row."""

    x: Tensor
    """(B, C, H, W): broken, else what came closest."""
    broken: Tensor
    norm: Tensor
    step: Tensor
    by: Tensor
    """The stage that broke it; -1: none."""
    forwards: Tensor
    backwards: Tensor


def attack_batch(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attack: Attack,
    threat: Threat,
    noise: Noise,
    *,
    slots: int = 512,
    early_stop: bool = True,
    precision: SearchPrecision = "exact",
    random: bool = False,
) -> Attacked:
    """Run an attack on a batch in memory, without records; every row is attacked.

    Args:
        x: images (B, C, H, W) in [0, 1].
        y: labels (B).
        threat: with a mask, bound to these images.
        noise: keyed by example, B of them.
        stop: whether an example is done once it is broken (see ``Field.stop``).
        precision: "auto" searches with the fastest model that can be vouched for.
        random: whether the model is randomised, so that one pass decides nothing.
    """
    column, kept = AttackVerdicts.empty(len(y)), x.clone()
    with unchanged_model(model):
        itself = exact_search_model(model)
        few = x[:COMPARED_IMAGES]
        context = EvalContext(
            data=Tensors(x, y),
            threat=threat,
            verifier=Verifier(model, random),
            search_model=itself
            if precision == "exact" or not len(x)
            else fastest_search_model(model, few, random=random)[0],
            noise=noise,
            slots=slots,
            early_stop=early_stop,
        )
        with torch.no_grad():
            classes = model(x[:1]).shape[1] if len(x) else 2
        stages = attack.stages(threat, classes)
        for _, _, found, best in run_stages(stages, column, np.ones(len(y), bool), context, itself):
            kept[found.rows[best].to(x.device)] = found.x[best].to(kept)
    arrays = {name: torch.from_numpy(values) for name, values in column.arrays.items()}
    return Attacked(
        kept,
        arrays["by"] >= 0,
        arrays["norm"],
        arrays["step"],
        arrays["by"],
        arrays["forwards"],
        arrays["backwards"],
    )
