"""Time attacks against other libraries': same model, same images, same settings, one process.

    python benchmarks/attacks.py --run results/some-training-run --only pgd,apgd --threads 1

See README.md beside this file for what is equal, what cannot be, and how to install the others.
"""

import inspect
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from case import Case, Size, Source, build
from peers import PEERS
from timing import Entrant, Row, contend
from torch import Tensor

from robustbench_cli import __version__
from robustbench_cli.attacks import ATTACKS
from robustbench_cli.commands import devices
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Norm
from robustbench_cli.evaluation.batch_attack import attack_batch
from robustbench_cli.models.layout import laid_out

PRECISIONS = ("exact", "auto") if "precision" in inspect.signature(attack_batch).parameters else ()
"""The precisions of the search; () in versions where it cannot be chosen."""


DISTRIBUTIONS = {
    "torchattacks": "torchattacks",
    "foolbox": "foolbox",
    "art": "adversarial-robustness-toolbox",
    "adv-lib": "adv-lib",
    "pyautoattack": "pyautoattack",
}
"""The libraries' names here, and on the package index."""


@dataclass(frozen=True, kw_only=True)
class Contest:
    """One attack that everybody runs."""

    title: str
    ours: str
    """Our attack as it is written on the command line; ``{cw_steps}`` is filled in."""
    norm: Norm = "Linf"
    repeat: int = 1
    warm: str | None = None
    """A quicker contest whose attack warms the libraries up for this one."""

    @property
    def minimal(self) -> bool:
        """True if the result is a distance."""
        return self.norm == "L2"


CONTESTS = {
    "pgd": Contest(title="PGD-20, Linf", ours="pgd20", repeat=3),
    "apgd": Contest(title="APGD-CE, 100 steps, Linf", ours="apgd-ce"),
    "aa": Contest(title="AutoAttack standard, Linf", ours="autoattack", warm="apgd"),
    "deepfool": Contest(title="DeepFool, L2", ours="deepfool", norm="L2"),
    "cw": Contest(title="Carlini-Wagner, L2", ours="cw-l2:steps={cw_steps}", norm="L2", warm="ddn"),
    "ddn": Contest(title="DDN, L2", ours="ddn", norm="L2"),
}


def ours(text: str, precision: str | None, case: Case) -> Tensor:
    """Our own attack as an evaluation runs it: clean errors are left out, that pass included.

    As there, the model is laid out for its convolutions first; that too is in the time.
    """
    laid_out(case.model, case.x.device)
    attack = ATTACKS.build(Spec.parse(text.format(cw_steps=case.cw_steps)))
    rows = (case.predictions(case.x) == case.y).nonzero().squeeze(1)
    chosen: dict[str, Any] = {} if precision is None else {"precision": precision}
    found = attack_batch(
        case.model,
        case.x[rows],
        case.y[rows],
        attack,
        case.threat,
        Noise(case.seed, rows),
        slots=case.batch_size,
        **chosen,
    )
    crafted = case.x.clone()
    crafted[rows] = found.x.to(crafted)
    return crafted


def entrants(name: str, libraries: Sequence[str]) -> list[Entrant]:
    """Ours in every precision, then the libraries that are asked for and have the attack."""
    contest = CONTESTS[name]
    warm = contest.warm or name
    # A nearest adversarial image is looked for in float32 whatever is asked for.
    precisions = (PRECISIONS[:1] if contest.minimal else PRECISIONS) or (None,)
    found = [
        Entrant(
            library=f"ours, {precision or 'exact'}",
            version=__version__,
            run=partial(ours, contest.ours, precision),
            warm=partial(ours, CONTESTS[warm].ours, precision),
        )
        for precision in precisions
    ]
    for library in libraries:
        run = PEERS[name].get(library)
        if run is not None:
            quick = PEERS[warm].get(library, run)
            found.append(Entrant(library=library, version=_version(library), run=run, warm=quick))
    return found


def _version(library: str) -> str:
    try:
        return version(DISTRIBUTIONS[library])
    except PackageNotFoundError:
        return ""


def table(rows: Sequence[Row], *, minimal: bool) -> str:
    """One contest in Markdown."""
    last = ["median L2", "found"] if minimal else ["robust", "outside"]
    heads = ["library", "version", "seconds", "/ exact", "/ auto", *last]
    base = {row.library.removeprefix("ours, "): row.median for row in rows[:2]}
    lines = [[row.library, row.version, *_cells(row, base, minimal=minimal)] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *lines, strict=True)]
    every = [heads, ["-" * width for width in widths], *lines]
    padded = ([text.ljust(w) for text, w in zip(line, widths, strict=True)] for line in every)
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def _cells(row: Row, base: dict[str, float], *, minimal: bool) -> list[str]:
    if row.verdict is None:
        return ["-"] * 5
    ratios = [row.median / base.get(name, math.nan) for name in ("exact", "auto")]
    seen = row.verdict
    last = (
        [f"{seen.norm:.4f}", f"{seen.found:.2%}"]
        if minimal
        else [f"{seen.robust:.2%}", str(seen.outside)]
    )
    shown = ["-" if math.isnan(ratio) else f"{ratio:.2f}" for ratio in ratios]
    return [f"{row.median:.2f}", *shown, *last]


def record(name: str, row: Row) -> dict[str, Any]:
    """A row as the JSON file keeps it; infinite and missing numbers are null there."""
    verdict = row.verdict._asdict() if row.verdict else {}
    numbers = {"median": row.median, **verdict}
    finite = {key: value if math.isfinite(value) else None for key, value in numbers.items()}
    kept = ("library", "version", "seconds", "cpu_seconds", "failed")
    return {"attack": name, **{key: getattr(row, key) for key in kept}, **finite}


def _listed(text: str, known: Sequence[str], option: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    odd = [name for name in names if name not in known]
    if odd:
        raise typer.BadParameter(f"{odd[0]!r}; it takes {', '.join(known)}", param_hint=option)
    return names


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The contests to hold, and the libraries that take part."""

    names: list[str]
    libraries: list[str]
    repeat: int | None
    out: Path | None


def hold(plan: Plan, cases: Mapping[Norm, Case], settings: Mapping[str, Any]) -> None:
    """Every contest in turn; the file is written after each, so that an interruption costs one."""
    kept: list[dict[str, Any]] = []
    for name in plan.names:
        contest = CONTESTS[name]
        print(f"\n{contest.title}", flush=True)
        found = entrants(name, plan.libraries)
        rows = contend(found, cases[contest.norm], plan.repeat or contest.repeat)
        print(f"\n{table(rows, minimal=contest.minimal)}", flush=True)
        kept += [record(name, row) for row in rows]
        if plan.out is not None:
            text = json.dumps({**settings, "rows": kept}, indent=2, allow_nan=False)
            plan.out.write_text(text + "\n")


def main(
    model: Annotated[str, typer.Option(help="A registered architecture.")] = "preact-resnet-18",
    width: Annotated[int | None, typer.Option(help="Its width.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Its state dict: .safetensors.")] = None,
    run: Annotated[Path | None, typer.Option(help="A training run's folder instead.")] = None,
    data: Annotated[
        str | None,
        typer.Option(help="mnist, cifar10-jpeg, ... (default: the run's, else cifar10-jpeg)."),
    ] = None,
    data_dir: Annotated[
        Path, typer.Option(help="Where data sets are.", envvar="ADVBENCH_DATA")
    ] = Path("../shared/data"),
    n: Annotated[int, typer.Option(min=1, help="Test images, from the first.")] = 256,
    batch_size: Annotated[int, typer.Option(min=1, help="Everybody's.")] = 256,
    eps: Annotated[str | None, typer.Option(help="Linf radius (default: the data's).")] = None,
    only: Annotated[str, typer.Option(help="Contests, with commas.")] = ",".join(CONTESTS),
    peers: Annotated[str, typer.Option(help="Libraries, with commas.")] = ",".join(DISTRIBUTIONS),
    repeat: Annotated[
        int | None, typer.Option(min=1, help="Runs each (default: 3 of PGD, 1 of the others).")
    ] = None,
    right_only: Annotated[
        bool, typer.Option("--right-only", help="Attack only images that are right when clean.")
    ] = False,
    cw_steps: Annotated[int, typer.Option(min=10, help="C&W's steps per constant.")] = 1000,
    seed: Annotated[int, typer.Option(help="Everybody's.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="torch's, on the CPU.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "cpu",
    out: Annotated[Path | None, typer.Option(help="A JSON file for the results.")] = None,
) -> None:
    """Time attacks against other libraries on the same model and images."""
    plan = Plan(
        names=_listed(only, [*CONTESTS], "--only"),
        libraries=_listed(peers, [*DISTRIBUTIONS], "--peers"),
        repeat=repeat,
        out=out,
    )
    if threads is not None:
        torch.set_num_threads(threads)
    # An evaluation switches TF32 off; on a GPU the others would otherwise run in it.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    source = Source(data=data, root=data_dir, run=run, model=model, width=width, weights=weights)
    try:
        size = Size(
            n=n,
            batch_size=batch_size,
            eps=None if eps is None else float(Fraction(eps)),
            right_only=right_only,
            cw_steps=cw_steps,
            seed=seed,
        )
        where = devices.resolve_device(device)
        cases = build(source, size, where)
    except (UserError, ValueError) as error:
        raise typer.BadParameter(str(error)) from None
    settings = describe(source, size, cases["Linf"], where)
    hold(plan, cases, settings)


def describe(source: Source, size: Size, case: Case, where: torch.device) -> dict[str, Any]:
    """Print what is compared on what, and return it for the file."""
    around = devices.run_environment(where)
    right = float((case.predictions(case.x) == case.y).float().mean())
    print(
        f"{around['device_name']}, {around['threads']} threads, torch {around['torch']}\n"
        f"{source.run or source.model}, {len(case.x)} images of {tuple(case.x.shape[1:])}, "
        f"batches of {case.batch_size}, {case.threat}, clean accuracy {right:.2%}"
    )
    if not source.trained:
        print("untrained: labels are its own predictions; on such a net times mean little")
    asked = {**asdict(source), **asdict(size), "eps": case.eps}
    paths = {key: str(value) if isinstance(value, Path) else value for key, value in asked.items()}
    return {"environment": around, "settings": paths, "clean_accuracy": right}


if __name__ == "__main__":
    typer.run(main)
