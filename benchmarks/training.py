"""Time updates of the weights against the official scripts' way of writing them.

    python benchmarks/training.py --threads 2 --steps 5 --out training.json

Same network, batches, starts and settings, in one process, update by update in turn; see README.md
beside this file for what is equal and what cannot be.
"""

import copy
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import loops
import torch
import typer
from case import Source
from floor import Clock, Floor, Side, floor
from torch import Tensor

from robustbench_cli.commands import devices
from robustbench_cli.config.schema import Training
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.data import Dataset, Split
from robustbench_cli.defenses import Recipe, parse
from robustbench_cli.defenses._step import Step, Trained
from robustbench_cli.models import Classifier
from robustbench_cli.models.layout import laid_out
from robustbench_cli.optim import OPTIMIZERS, SCHEDULES
from robustbench_cli.training.trainer import Trainer, Watch

THREAT = Threat("Linf", 8 / 255)
LR = 0.01
"""Small enough that rounding does not run away within a few updates."""


@dataclass(frozen=True, kw_only=True)
class Contest:
    """One way of training, ours and theirs."""

    title: str
    ours: str
    """Our recipe; ``{inner}`` is filled in."""
    theirs: loops.Update
    start: Callable[[Tensor, Noise], Tensor]
    """The starting perturbation of their inner attack (B, C, H, W), which is ours."""
    passes: Callable[[int], dict[str, int]]
    """The passes that our update needs, by kind, given the number of inner steps."""


CONTESTS = {
    "pgd-at": Contest(
        title="PGD-AT (Rice et al.)",
        ours="pgd-at:steps={inner}",
        theirs=loops.pgd_at,
        start=lambda x, noise: THREAT.random_start(x, noise) - x,
        passes=lambda inner: {"forward": inner + 1, "input": inner + 1, "weight": 1},
    ),
    "trades": Contest(
        title="TRADES",
        ours="trades:steps={inner}",
        theirs=loops.trades,
        start=lambda x, noise: 0.001 * noise.normal(x),
        passes=lambda inner: {"forward": inner + 3, "input": inner + 2, "weight": 2},
    ),
}


@dataclass(frozen=True, kw_only=True)
class Task:
    """The model and the data that both sides train on."""

    model: Classifier
    dataset: Dataset
    data: Split
    """Exactly the images of the updates, the warm-up included."""
    batch_size: int
    inner: int
    precision: str
    device: torch.device

    @property
    def updates(self) -> int:
        """Updates that are timed; one more comes before them."""
        return len(self.data) // self.batch_size - 1


class Seen(Recipe):
    """A recipe that keeps the batch it was given, for the other side."""

    def backward(self, step: Step, release: Any) -> Trained:
        object.__setattr__(self, "step", step)
        return super().backward(step, release)


def contend(contest: Contest, task: Task) -> tuple[Side, Side]:
    """Both sides, update by update in turn, from the same weights on the same batches."""
    built = Recipe.build(parse(contest.ours.format(inner=task.inner)))
    recipe = Seen(built.objective, built.modifiers)
    trainer = _trainer(recipe, task)
    model = copy.deepcopy(task.model).to(task.device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9, weight_decay=5e-4)
    ours, theirs, clock = Side(), Side(), Clock(task.device)

    def turn(watch: Watch) -> None:
        before = sum(ours.losses)
        clock.stop(ours, watch.loss() * watch.batch - before)
        step: Step = recipe.step  # type: ignore[attr-defined]
        start = contest.start(step.x, step.noise.fork("start")).cpu().contiguous()
        x, y = step.x.cpu().contiguous(), step.y.cpu()
        clock.start()
        clock.stop(theirs, contest.theirs(model, optimizer, x, y, start, task.inner))
        print(
            f"  update {watch.batch} of {watch.batches}: ours {ours.seconds[-1]:.2f} s, "
            f"theirs {theirs.seconds[-1]:.2f} s",
            flush=True,
        )
        clock.start()

    trainer.epoch(0, turn)
    return ours, theirs


def _trainer(recipe: Recipe, task: Task) -> Trainer:
    """Our side, as ``advbench train`` sets it up."""
    model = laid_out(copy.deepcopy(task.model), task.device)
    model.low_precision = task.precision == "bf16"
    return Trainer(
        model=model,
        recipe=recipe,
        optimizer=OPTIMIZERS.build(Spec("sgd")).build(model, LR),
        schedule=SCHEDULES.build(Spec("constant")),
        threat=THREAT,
        options=Training(epochs=1, batch_size=task.batch_size, lr=LR, probe=0),
        dataset=task.dataset,
        data=task.data.to(task.device),
    )


def described(name: str, ours: Side, theirs: Side, alone: Floor, task: Task) -> dict[str, Any]:
    """A contest in numbers, as the file keeps it."""
    gaps = [abs(a - b) / abs(b) for a, b in zip(ours.losses, theirs.losses, strict=True)]
    passes = CONTESTS[name].passes(task.inner)
    clock = "cpu_seconds" if task.device.type == "cpu" else "seconds"
    return {
        "training": CONTESTS[name].title,
        "ours": asdict(ours),
        "theirs": asdict(theirs),
        "ratio": theirs.median() / ours.median(),
        "cpu_ratio": theirs.median("cpu_seconds") / ours.median("cpu_seconds"),
        "apart": max(gaps),
        "convolutions": alone.of(passes) / ours.median(clock),
        "gflops": alone.operations * sum(passes.values()) / ours.median(clock),
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The contests in Markdown."""
    heads = ["training", "ours s", "theirs s", "ratio", "CPU ratio", "loss", "apart", "conv"]
    heads.append("GFLOP/s")
    lines = []
    for row in rows:
        sides = [statistics.median(row[side]["seconds"][1:]) for side in ("ours", "theirs")]
        cells = [row["training"], *(f"{seconds:.2f}" for seconds in sides)]
        cells += [f"{row['ratio']:.2f}", f"{row['cpu_ratio']:.2f}"]
        cells += [f"{row['theirs']['losses'][-1]:.4f}", f"{row['apart']:.1e}"]
        lines.append([*cells, f"{row['convolutions']:.0%}", f"{row['gflops']:.0f}"])
    widths = [max(map(len, column)) for column in zip(heads, *lines, strict=True)]
    every = [heads, ["-" * width for width in widths], *lines]
    padded = ([text.ljust(w) for text, w in zip(line, widths, strict=True)] for line in every)
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def main(
    model: Annotated[str, typer.Option(help="A registered architecture.")] = "preact-resnet-18",
    width: Annotated[int | None, typer.Option(help="Its width.")] = None,
    data: Annotated[
        str, typer.Option(help="A data set, or a folder of parquet files in --data-dir.")
    ] = ("cifar10-jpeg"),
    data_dir: Annotated[
        Path, typer.Option(help="Where data sets are.", envvar="ADVBENCH_DATA")
    ] = Path("../shared/data"),
    batch_size: Annotated[int, typer.Option(min=2, help="Images per update.")] = 128,
    steps: Annotated[
        int, typer.Option(min=1, help="Updates that are timed, after a first one.")
    ] = 5,
    inner: Annotated[int, typer.Option(min=1, help="Steps of the inner attack.")] = 10,
    only: Annotated[str, typer.Option(help="Contests, with commas.")] = ",".join(CONTESTS),
    precision: Annotated[str, typer.Option(help="Ours: float32, bf16, or auto.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="torch's, on the CPU.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "cpu",
    seed: Annotated[int, typer.Option(help="Of the weights.")] = 0,
    out: Annotated[Path | None, typer.Option(help="A JSON file for the results.")] = None,
) -> None:
    """Time training updates against the official scripts' structure."""
    names = [name for name in only.split(",") if name]
    if odd := [name for name in names if name not in CONTESTS]:
        raise typer.BadParameter(f"{odd[0]!r}; it takes {', '.join(CONTESTS)}", param_hint="--only")
    if threads is not None:
        torch.set_num_threads(threads)
    # Theirs is float32 as they run it.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        where = devices.resolve_device(device)
        source = Source(data=data, root=data_dir, run=None, model=model, width=width, weights=None)
        dataset = source.dataset()
        split = dataset.load("train", data_dir)
        torch.manual_seed(seed)
        task = Task(
            model=source.network(dataset, split),  # type: ignore[arg-type]
            dataset=dataset,
            data=split.only(slice((steps + 1) * batch_size)),
            batch_size=batch_size,
            inner=inner,
            precision=devices.resolve_precision(precision, where),  # type: ignore[arg-type]
            device=where,
        )
    except (UserError, ValueError) as error:
        raise typer.BadParameter(str(error)) from None
    around = devices.run_environment(where)
    print(
        f"{around['device_name']}, {around['threads']} threads, torch {around['torch']}\n"
        f"{model}, width {width or 'as usual'}, batches of {batch_size}, {inner} inner steps, "
        f"{THREAT}, ours in {task.precision}"
    )
    alone = floor(task.model, task.data.images(slice(batch_size)).to(where))
    best = {part: f"{alone.operations / took:.0f}" for part, took in alone.seconds.items()}
    print(
        f"convolutions by themselves, GFLOP/s: forward {best['forward']}, gradient of the input "
        f"{best['input']}, of the weights {best['weight']}"
    )
    asked = {"model": model, "width": width, "data": data, "batch_size": batch_size}
    asked |= {"inner": inner, "precision": task.precision, "seed": seed}
    rows: list[dict[str, Any]] = []
    for name in names:
        print(f"\n{CONTESTS[name].title}", flush=True)
        rows.append(described(name, *contend(CONTESTS[name], task), alone, task))
        if out is not None:
            kept = {"environment": around, "settings": asked, "floor": asdict(alone), "rows": rows}
            out.write_text(json.dumps(kept, indent=2, allow_nan=False) + "\n")
    print(f"\n{table(rows)}", flush=True)


if __name__ == "__main__":
    typer.run(main)
