"""``advbench show``: what one name means, who published it, its parameters and how to use it."""

import importlib
import inspect
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustbench_cli.cli import completion, options
from robustbench_cli.cli.console import rendered, table_console
from robustbench_cli.cli.listing import accuracies_in_words
from robustbench_cli.config import catalogue, presets
from robustbench_cli.core.errors import UserError, hint

if TYPE_CHECKING:
    from rich.console import RenderableType

    from robustbench_cli.runs.records import Run

    Parts = Sequence[RenderableType]


def show_command(
    name: Annotated[
        str,
        typer.Argument(
            help="A defense, attack, metric defense, retrieval attack, view, mask, transform, "
            "certificate, detector, generator, model, data set, optimizer, schedule, check, "
            "preset, suite or run; with parameters, too: pgd100, trades:beta=1.",
            autocompletion=completion.complete_names,
        ),
    ],
    results: options.ResultsOption = Path("results"),
    debug: options.DebugOption = False,
) -> None:
    """Explain one name: what it is, who published it, its parameters, how to use it.

    \b
    advbench show trades
    advbench show pgd100         what the short form stands for
    advbench show 4f1a           a run, by any part of its name that only it has
    """
    console = table_console()
    sections = _explanations(name.strip(), results)
    typer.echo("\n".join(rendered(console, parts) for parts in sections), nl=False)


def _explanations(name: str, results: Path) -> "list[Parts]":
    """Return an explanation of everything that ``name`` means, each as what is to be printed."""
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
    """Explain a registered class, which is imported for its types and defaults."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from robustbench_cli.core.registry import Registry, Spec

    place, its_name = catalogue.REGISTRIES[item.kind]
    registry: Registry[Any] = getattr(importlib.import_module(f"robustbench_cli.{place}"), its_name)
    cls, spec = registry.entry(item.name).cls, registry.resolve(Spec.parse(text))
    typed = ",".join(f"{key}={value}" for key, value in spec.params.items())
    made = registry.build(spec) if typed else None
    whole = f"{item.name}:{typed}" if typed else item.name
    blank = f":{item.positional.upper()}" if item.positional and not typed else ""
    facts = {
        "means": whole if whole != text else "",
        "also": ", ".join(item.spellings()),
        "paper": item.paper,
        "link": ", ".join(item.links),
        **_FACTS.get(item.kind, lambda _: {})(cls),
    }
    usual = _EXAMPLES.get(item.group or item.kind, "").format(text + blank)
    facts["example"] = facts.pop("run by", usual)
    titles = ("parameter", "type", "default", *(["here"] if typed else []), "meaning")
    table = Table(*titles, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for each in catalogue.parameters(cls):
        here = [catalogue.typed(getattr(made, each.name))] if typed else []
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
    """Explain a preset, suite or study by the text of its file."""
    from rich.text import Text

    recipe = item.kind in _RECIPES
    needed = presets.as_typed(presets.needs(item.name)) if recipe else []
    example = " ".join([_EXAMPLES[item.kind].format(text), *needed])
    said = presets.preset_source(item.name) if recipe else {}
    facts = {"file": str(item.path), "needs": ", ".join(needed), **said, "example": example}
    title = _title(text, _ONE.get(item.kind, item.kind.removesuffix("s")))
    return title, _grid(facts), Text(f"\n{item.path.read_text()}", end="")


def _run(folder: Path) -> "Parts":
    """Explain a run by its record."""
    from robustbench_cli.cli.eval_summary import trust_notes
    from robustbench_cli.report.number_trust import attack_trust, derived_text
    from robustbench_cli.runs import records

    run = records.read(folder)
    kept = [w for w in (run.checkpoint, run.last, run.evaluated) if w]
    named = "; ".join(f"{w.file}, epoch {w.epoch} ({w.rule})" for w in kept)
    facts = {
        "folder": str(folder),
        "made": f"{run.created.astimezone():%Y-%m-%d %H:%M}, {run.seconds:.0f} s of work",
        "command": shlex.join(["advbench", *run.command]),
        "subject": run.subject + run.settings.behind,
        "accuracy": accuracies_in_words(run),
        "trust": "\n".join(trust_notes(run)),
        "examples": str(run.n or ""),
        "trained by": f"{run.parent}, seed {run.seed}" if run.parent else "",
        "weights": named or run.weights[:12],
        **{key: _settings(value) for key, value in run.config.items() if value is not None},
        "n": _images(run),
        "AUROC": ", ".join(
            f"{each.attack} {each.detector} ({each.population}) "
            + derived_text(attack_trust(run, each.attack), f"{each.auroc:.2%}")
            for each in run.detections
            if each.auroc is not None
        ),
        "searched in": run.search,
        "software": _settings(run.environment),
        "notes": "; ".join(run.notes),
        "error": run.error or "",
    }
    return _title(run.id, f"{run.kind} run, {run.status}"), _grid(facts)


def _images(run: "Run") -> str:
    """Return the number of test images that were asked for, where 0 stands for all of them."""
    asked = run.config.get("n")
    if asked is None:
        return ""
    return str(asked) if asked else f"all ({run.n})" if run.n else "all"


def _settings(value: object) -> str:
    """Return nested settings in one line: ``trades: steps=10, step=0.25; awp: gamma=0.005``."""
    from robustbench_cli.core.threat_text import format_eps

    if not isinstance(value, Mapping):
        return format_eps(value) if isinstance(value, float) else catalogue.typed(value)
    deep = any(isinstance(inner, Mapping) for inner in value.values())
    sign = ": " if deep else "="
    return ("; " if deep else ", ").join(f"{k}{sign}{_settings(v)}" for k, v in value.items())


_EXAMPLES = {
    "objective": "advbench train {}",
    "modifier": "advbench train trades+{}",
    "attacks": "advbench eval --attack {}",
    "metric-defenses": "advbench train --task metric {}",
    "retrieval-attacks": "advbench retrieve --attack {}",
    "views": "advbench eval --attack adaptive",
    "input-defenses": "advbench eval --attack adaptive --defend {}",
    "masks": "advbench eval --attack pgd20 --mask {}",
    "transforms": "advbench joint --transform identity --transform {}",
    "certificates": "advbench eval --certify {}",
    "detectors": "advbench detect fit {}",
    "explanations": "advbench explain {}",
    "generators": "advbench synth fit {}",
    "models": "advbench train trades --model {}",
    "datasets": "advbench train trades --dataset {}",
    "optimizers": "advbench train trades --set optimizer.name={}",
    "schedules": "advbench train trades --set schedule.name={}",
    "figures": "advbench plot {}",
    "checks": "advbench eval --attack pgd20",
    "logs": "advbench train trades --log {}",
    "launchers": "advbench study mine.toml --launcher {}",
    "presets": "advbench train --preset {}",
    "suites": "advbench eval --suite {}",
    "studies": "advbench study {}",
}
_ONE = {"studies": "study"}
_RECIPES = {"presets"}  # no other file can say that it needs an option, or what it follows


def _check_facts(cls: Any) -> dict[str, str]:
    """Return what a check needs, what it costs, what follows from what it finds, and the command
    that runs it."""
    from robustbench_cli.audit import BatteryCheck

    follows = {
        "info": "info: worth knowing",
        "warning": "warning: the robust accuracy is an upper bound",
        "error": "error: the number means nothing and is withheld",
    }
    return {
        "severity": follows[cls.severity],
        "concerns": "robust and clean accuracy" if cls.clean else "robust accuracy",
        "needs": ", ".join(cls.needs),
        "cost": f"{cls.passes:g} passes for each image" if cls.passes else "no passes of its own",
        "says": cls.sentence().format(images="N", of="M", value="X", what="..."),
        "run by": "advbench audit" if issubclass(cls, BatteryCheck) else _EXAMPLES["checks"],
    }


_FACTS: Mapping[str, Callable[[Any], Mapping[str, str]]] = {
    "attacks": lambda cls: {
        "usual": f"at least {cls.min_classes} classes" if cls.min_classes > 2 else ""
    },
    "input-defenses": lambda cls: {
        "hides": cls.hides,
        "gradients": ", ".join(cls.backwards),
        "randomised": "yes" if cls().randomised else "",
        "dynamic": "takes gradients of the model in its forward pass" if cls().dynamic else "",
    },
    "sources": lambda cls: {
        "run by": f"advbench eval --dataset cifar10 --attack pgd20 --model {cls.example}"
    },
    "datasets": lambda cls: {"usual": _settings({"eps": cls.eps, **cls.defaults})},
    "checks": _check_facts,
}
"""What a kind's members say of themselves, from their class variables."""
