"""A model under an attack, stage by stage: what is still standing goes on to the next stage."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_cli.attacks import Attack, Stage, Whole
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.active_batch import Found
from robustbench_cli.evaluation.attack_loop import Field, run
from robustbench_cli.evaluation.out_of_memory import halving
from robustbench_cli.evaluation.search_model import SHOWN, Lens, Precision, exact, quick
from robustbench_cli.evaluation.verifier import Judge, judging

COLUMNS: dict[str, tuple[type[np.generic], float]] = {
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
class Column:
    """The verdicts of one attack, one entry per example.

    ``prediction`` and ``norm`` are of the adversarial image, else of the one that came closest to
    being wrong; ``by`` is the stage that broke the example (-1: none), ``stages`` how many it has
    been through, ``flat`` whether one of them found nothing to climb where it began, ``share`` how
    often the prediction is right (0 or 1 unless the model is random).
    """

    arrays: dict[str, np.ndarray]

    @classmethod
    def empty(cls, n: int) -> "Column":
        """Nothing is known yet of ``n`` examples."""
        return cls({name: np.full(n, void, kind) for name, (kind, void) in COLUMNS.items()})

    @property
    def broken(self) -> np.ndarray:
        """Which examples a stage has broken."""
        return np.asarray(self.arrays["by"] >= 0)

    def waiting(self, stage: int, minimal: bool) -> np.ndarray:
        """Which examples are for this stage; the nearest image is wanted of all of them."""
        return (~self.broken | minimal) & (self.arrays["stages"] <= stage)

    def put(self, stage: int, found: Found, minimal: bool) -> np.ndarray:
        """Take in what a stage found; say which of its images are the ones to keep."""
        rows, a = found.rows.numpy(), self.arrays
        # The image that counts is the broken one, else the one with the highest margin.
        better = found.margin.numpy() >= a["margin"][rows]
        better = better if minimal else better | found.broken.numpy()
        for name in ("prediction", "share", "margin", "norm", "step"):
            a[name][rows[better]] = getattr(found, name).numpy()[better]
        a["by"][rows[found.broken.numpy() & better]] = stage
        a["stages"][rows] = stage + 1
        a["flat"][rows] |= found.flat.numpy()
        a["forwards"][rows] += found.forwards.numpy()
        a["backwards"][rows] += found.backwards.numpy()
        return np.asarray(better)


class Progress(NamedTuple):
    """A stage of an attack, and some examples that are through with it."""

    number: int
    stage: Stage
    found: Found
    kept: np.ndarray
    """Which of its images are the best so far."""


def clean(field: Field, rows: Tensor) -> Iterator[Found]:
    """The verdicts on the images as they are, batch by batch."""

    def batches(left: Tensor, size: int) -> Iterator[Found]:
        for part in torch.split(left, size):
            x, y = field.data.images(part), field.data.y[part]
            verdict = field.judge.of(part).verdict(x, x, y)
            yield Found.judged(part, x, torch.zeros_like(part), verdict)

    return halving(batches, rows, field.slots, field.note)


def evaluate(
    stages: list[Stage], column: Column, standing: np.ndarray, field: Field, itself: Lens
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
        rows = waiting.to(field.data.y.device)
        # A nearest adversarial image lies on the boundary, and differences between probes are
        # small: for both only the model itself will do.
        fine = stage.attack.minimal or stage.attack.probes > 0 or isinstance(stage.attack, Whole)
        lens = itself if fine else field.lens
        # What a randomised model's noise leaves in doubt another look would not settle.
        doubt = 0.0 if field.judge.random else lens.doubt
        unsure: list[tuple[Tensor, ...]] = []  # rows and what they cost, not their images
        for found in run(stage, rows, replace(field, lens=lens)):
            close = ~found.broken & (found.margin > -doubt) & bool(doubt)
            if close.any():
                unsure.append((found.rows[close], found.forwards[close], found.backwards[close]))
                found = _part(found, ~close)
            yield from _kept(column, index, stage, found, field)
        if unsure:
            again, forwards, backwards = map(torch.cat, zip(*unsure, strict=True))
            column.arrays["forwards"][again.numpy()] += forwards.numpy()
            column.arrays["backwards"][again.numpy()] += backwards.numpy()
            for found in run(stage, again.to(rows.device), replace(field, lens=itself)):
                yield from _kept(column, index, stage, found, field)


def _kept(
    column: Column, index: int, stage: Stage, found: Found, field: Field
) -> Iterator[Progress]:
    if len(found.rows):
        found = _handed(found, field, stage.attack.minimal) if field.target else found
        kept = column.put(index, found, stage.attack.minimal)
        yield Progress(index, stage, found, kept)


def _handed(found: Found, field: Field, minimal: bool) -> Found:
    """The target's verdict on images that were crafted on another model."""
    assert field.target is not None
    rows = found.rows.to(field.data.y.device)
    x, y = field.data.images(rows), field.data.y[rows]
    judge, x_adv = field.target.of(rows), found.x.to(x)
    verdict = judge.verdict(x_adv, x, y, bounded=not minimal)
    seen = Found.judged(rows, x_adv, judge.threat.distance(x_adv, x), verdict)
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


def _part(found: Found, which: Tensor) -> Found:
    return Found(**{f.name: getattr(found, f.name)[which] for f in fields(found)})


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


def attacked(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attack: Attack,
    threat: Threat,
    noise: Noise,
    *,
    slots: int = 512,
    stop: bool = True,
    precision: Precision = "exact",
) -> Attacked:
    """Run an attack on a batch in memory, without records; every row is attacked.

    Args:
        x: images (B, C, H, W) in [0, 1].
        y: labels (B).
        threat: with a mask, bound to these images.
        noise: keyed by example, B of them.
        stop: whether an example is done once it is broken (see ``Field.stop``).
        precision: "auto" searches with the fastest model that can be vouched for.
    """
    column, kept = Column.empty(len(y)), x.clone()
    with judging(model):
        itself = exact(model)
        few = x[:SHOWN]
        field = Field(
            data=Tensors(x, y),
            judge=Judge(model, threat),
            lens=itself if precision == "exact" or not len(x) else quick(model, few)[0],
            noise=noise,
            slots=slots,
            stop=stop,
        )
        with torch.no_grad():
            classes = model(x[:1]).shape[1] if len(x) else 2
        stages = attack.stages(threat, classes)
        for _, _, found, best in evaluate(stages, column, np.ones(len(y), bool), field, itself):
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
