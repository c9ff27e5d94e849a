"""``advbench list`` and ``advbench show``: what there is, and what it means."""

import importlib
import inspect
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustbench_cli.cli import completion, options
from robustbench_cli.config import catalogue, presets
from robustbench_cli.core.errors import UserError, hint

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from robustbench_cli.runs.records import Run

    Parts = Sequence[RenderableType]

Results = Annotated[Path, typer.Option(help="Where run folders are.", envvar="ADVBENCH_RESULTS")]


def list_command(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="defenses, attacks, masks, transforms, certificates, detectors, generators, "
            "models, datasets, optimizers, schedules, figures, presets, suites, or runs "
            "(default: all but runs).",
            autocompletion=completion.kinds,
        ),
    ] = None,
    results: Results = Path("results"),
    debug: options.DebugOption = False,
) -> None:
    """Name everything there is to choose from, a line each.

    \b
    advbench list                all of it
    advbench list attacks
    advbench list runs           what has been trained and evaluated
    """
    every: dict[str, Callable[[Console], Parts]] = {k: partial(_items, k) for k in catalogue.KINDS}
    every["runs"] = partial(_runs, results)
    if kind is not None and kind not in every:
        raise UserError(f"unknown kind {kind!r}{hint(kind, every)}")
    console = screen()
    _print(console, (every[each](console) for each in ([kind] if kind else catalogue.KINDS)))


def show_command(
    name: Annotated[
        str,
        typer.Argument(
            help="A defense, attack, mask, transform, certificate, detector, generator, model, "
            "data set, optimizer, schedule, preset, suite or run; with parameters, too: pgd100, "
            "trades:beta=1.",
            autocompletion=completion.complete_names,
        ),
    ],
    results: Results = Path("results"),
    debug: options.DebugOption = False,
) -> None:
    """Explain one name: what it is, who published it, its parameters, how to use it.

    \b
    advbench show trades
    advbench show pgd100         what the short form stands for
    advbench show 4f1a           a run, by any part of its name that only it has
    """
    _print(screen(), _found(name.strip(), results))


def screen() -> "Console":
    """Where tables go: as wide as the terminal; a file or a pipe gets every line whole."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=10_000)


def fits(console: "Console", part: "RenderableType") -> bool:
    """Whether nothing has to be folded."""
    wanted = console.measure(part, options=console.options.update(width=10_000))
    return wanted.maximum <= console.width


def drawn(console: "Console", parts: "Parts") -> str:
    """What the console would show, without the blanks that fill its lines."""
    with console.capture() as capture:
        for part in parts:
            console.print(part)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def _print(console: "Console", sections: "Iterable[Parts]") -> None:
    typer.echo("\n".join(drawn(console, parts) for parts in sections), nl=False)


def _items(kind: str, _: "Console") -> "Parts":
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for style in ("bold", "dim", ""):
        table.add_column(style=style, overflow="fold")
    for item in sorted(catalogue.scan(kind), key=lambda item: item.group == "modifier"):
        said = f"{item.group}: {item.summary}" if item.group else item.summary
        table.add_row(*map(Text, (item.name, ", ".join(item.spellings()), said)))
    return Text(kind, "bold underline"), Padding(table, (0, 0, 0, 2), expand=False)


def _runs(results: Path, console: "Console") -> "Parts":
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from robustbench_cli.report.seed_groups import display_name
    from robustbench_cli.runs import folders

    titles = ("run", "kind", "status", "subject", "data", "created", "accuracy")
    table = Table(*titles, box=None, pad_edge=False)
    lines = [
        (
            run.id,
            run.kind,
            run.status,
            display_name(run),
            str(run.dataset.get("name", "")),
            f"{run.created.astimezone():%Y-%m-%d %H:%M}",
            run.error or _numbers(run),
        )
        for run in folders.every(results)
    ]
    for line in lines:
        table.add_row(*map(Text, line))
    if not lines:
        return [Text(f"no runs in {str(results)!r}; try advbench train trades")]
    if fits(console, table):
        return [table]
    # A name that is folded cannot be copied.
    below = [Padding(Text("  ".join(filter(None, rest))), (0, 0, 0, 2)) for _, *rest in lines]
    return [part for line, rest in zip(lines, below, strict=True) for part in (Text(line[0]), rest)]


def _numbers(run: "Run") -> str:
    """A run's accuracies: under each attack, or at its last epoch so far."""
    shares = {"clean": run.clean_accuracy}
    shares |= {label: outcome.robust_accuracy for label, outcome in run.attacks.items()}
    shares |= {label: proof.accuracy for label, proof in run.certificates.items()}
    words = [f"{label} {share:.2%}" for label, share in shares.items() if share is not None]
    last = run.history[-1] if run.history else {}
    words += [f"epoch {last['epoch']}/{run.config['train']['epochs']}"] if last else []
    for split, title in (("train", "train"), ("val", "held out")):
        pair = last.get(f"{split}_clean"), last.get(f"{split}_robust")
        if None not in pair:
            words.append(f"{title}: clean {pair[0]:.1%} pgd10 {pair[1]:.1%}")
    return "  ".join(words)


def _found(name: str, results: Path) -> "list[Parts]":
    """Everything that ``name`` means, each as what is to be printed."""
    from robustbench_cli.runs import folders

    items = [item for kind in catalogue.KINDS for item in catalogue.scan(kind)]

    def meant(text: str) -> list[catalogue.Item]:
        return [item for item in items if item.means(text.partition(":")[0].lower())]

    if (Path(name) / "run.json").is_file():
        return [_run(Path(name))]
    whole = [name] if meant(name) else re.split(r"\+(?=[A-Za-z])", name)
    pairs = [(item, text) for text in whole for item in meant(text) if all(map(meant, whole))]
    found = [(_component if i.kind in catalogue.REGISTRIES else _template)(i, t) for i, t in pairs]
    runs = {file.parent.name: file.parent for file in folders.record_files(results)}
    tests = (str.__eq__,) if found else (str.__eq__, str.startswith, str.__contains__)
    near = next(filter(None, ([run for run in runs if same(run, name)] for same in tests)), [])
    if len(near) > 1:
        raise UserError(f"run {name!r} is ambiguous: {', '.join(near[:4])}")
    if near or found:
        return found + [_run(runs[run]) for run in near]
    known = [*(each for item in items for each in (item.name, *item.aliases)), *runs]
    raise UserError(f"unknown name {name!r}{hint(name, known, 'advbench list')}")


def _component(item: catalogue.Item, text: str) -> "Parts":
    """A registered class, in words: imported now, for its types and defaults."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from robustbench_cli.core.registry import Registry, Spec

    place, its_name = catalogue.REGISTRIES[item.kind]
    registry: Registry[Any] = getattr(importlib.import_module(f"robustbench_cli.{place}"), its_name)
    cls, spec = registry.entry(item.name).cls, registry.resolve(Spec.parse(text))
    given = ",".join(f"{key}={value}" for key, value in spec.params.items())
    values = registry.describe(registry.build(spec)) if given else {}
    whole = f"{item.name}:{given}" if given else item.name
    blank = f":{item.positional.upper()}" if item.positional and not given else ""
    facts = {
        "means": whole if whole != text else "",
        "also": ", ".join(item.spellings()),
        "paper": item.paper,
        "link": ", ".join(item.links),
        "usual": _USUAL.get(item.kind, lambda _: "")(cls),
        "example": _EXAMPLES[item.group or item.kind].format(text + blank),
    }
    titles = ("parameter", "type", "default", *(["here"] if given else []), "meaning")
    table = Table(*titles, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for each in catalogue.parameters(cls):
        here = [catalogue.typed(values[each.name])] if given else []
        style = "bold" if here not in ([], [each.default]) else ""
        cells = (each.name, each.type, each.default, *here, each.meaning)
        table.add_row(*(Text(cell, style) for cell in cells))
    doc = (inspect.getdoc(cls) or "").replace("``", "").split("\n\n")
    flowing = "\n\n".join(" ".join(paragraph.split()) for paragraph in doc)
    head = _title(text, item.group or item.kind.removesuffix("s"))
    return [head, Text(flowing), "", _grid(facts), "", table if table.rows else "no parameters"]


def _title(name: str, what: str) -> "RenderableType":
    from rich.text import Text

    return Text.assemble((name, "bold"), f"  {what}")


def _grid(facts: Mapping[str, str]) -> "RenderableType":
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    for name, fact in facts.items():
        if fact:
            grid.add_row(name, Text(fact))
    return grid


def _template(item: catalogue.Item, text: str) -> "Parts":
    """A preset, suite or bench: its file is the explanation."""
    from rich.text import Text

    needed = presets.as_typed(presets.needs(item.name)) if item.kind in _RECIPES else []
    example = " ".join([_EXAMPLES[item.kind].format(text), *needed])
    facts = {"file": str(item.path), "needs": ", ".join(needed), "example": example}
    title = _title(text, _ONE.get(item.kind, item.kind.removesuffix("s")))
    return title, _grid(facts), Text(f"\n{item.path.read_text()}", end="")


def _run(folder: Path) -> "Parts":
    """A run's record in words."""
    from robustbench_cli.runs import records

    run = records.read(folder)
    kept = [w for w in (run.checkpoint, run.last, run.evaluated) if w]
    named = "; ".join(f"{w.file}, epoch {w.epoch} ({w.rule})" for w in kept)
    facts = {
        "folder": str(folder),
        "made": f"{run.created.astimezone():%Y-%m-%d %H:%M}, {run.seconds:.0f} s of work",
        "command": shlex.join(["advbench", *run.command]),
        "subject": run.subject,
        "accuracy": _numbers(run),
        "examples": str(run.n or ""),
        "trained by": f"{run.parent}, seed {run.seed}" if run.parent else "",
        "weights": named or run.weights[:12],
        **{key: _settings(value) for key, value in run.config.items() if value is not None},
        "AUROC": ", ".join(
            f"{each.attack} {each.detector} ({each.population}) {each.auroc:.2%}"
            for each in run.detections
            if each.auroc is not None
        ),
        "searched in": run.search,
        "software": _settings(run.environment),
        "notes": "; ".join(run.notes),
        "error": run.error or "",
    }
    return _title(run.id, f"{run.kind} run, {run.status}"), _grid(facts)


def _settings(value: object) -> str:
    """Nested settings in one line: ``trades: steps=10, step=0.25; awp: gamma=0.005``."""
    from robustbench_cli.core.registry import radius

    if not isinstance(value, Mapping):
        return radius(value) if isinstance(value, float) else catalogue.typed(value)
    deep = any(isinstance(inner, Mapping) for inner in value.values())
    sign = ": " if deep else "="
    return ("; " if deep else ", ").join(f"{k}{sign}{_settings(v)}" for k, v in value.items())


_EXAMPLES = {
    "objective": "advbench train {}",
    "modifier": "advbench train trades+{}",
    "attacks": "advbench eval --attack {}",
    "masks": "advbench eval --attack pgd20 --mask {}",
    "transforms": "advbench joint --transform identity --transform {}",
    "certificates": "advbench eval --certify {}",
    "detectors": "advbench detect fit {}",
    "generators": "advbench synth fit {}",
    "models": "advbench train trades --model {}",
    "datasets": "advbench train trades --dataset {}",
    "optimizers": "advbench train trades --set optimizer.name={}",
    "schedules": "advbench train trades --set schedule.name={}",
    "figures": "advbench plot {}",
    "presets": "advbench train --preset {}",
    "suites": "advbench eval --suite {}",
    "benches": "advbench bench {}",
}
_ONE = {"benches": "bench"}
_RECIPES = {"presets"}  # no other file can say that it needs an option
_USUAL: Mapping[str, Callable[[Any], str]] = {
    "attacks": lambda cls: f"at least {cls.min_classes} classes" if cls.min_classes > 2 else "",
    "datasets": lambda cls: _settings({"eps": cls.eps, **cls.defaults}),
}
