"""``advbench list``: the names of everything there is to choose from, and the runs so far."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustbench_cli.cli import completion, options
from robustbench_cli.cli.console import fits_console, rendered, table_console
from robustbench_cli.cli.json_output import print_json
from robustbench_cli.config import catalogue
from robustbench_cli.core.errors import UserError, hint
from robustbench_cli.core.safe_text import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from robustbench_cli.report.number_trust import NumberTrust
    from robustbench_cli.runs.records import Run

    Parts = Sequence[RenderableType]


def list_command(
    kind: Annotated[
        str | None,
        typer.Argument(
            help=f"{', '.join(catalogue.KINDS)}, or runs (default: all but runs).",
            autocompletion=completion.kinds,
        ),
    ] = None,
    results: options.ResultsOption = Path("results"),
    json_: options.JsonOption = False,
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
    chosen = [kind] if kind else catalogue.KINDS
    if json_:
        as_data: dict[str, Callable[[], Any]] = {
            k: partial(_items_data, k) for k in catalogue.KINDS
        }
        as_data["runs"] = partial(_runs_data, results)
        print_json([item for each in chosen for item in as_data[each]()])
        return
    console = table_console()
    sections = (every[each](console) for each in chosen)
    typer.echo("\n".join(rendered(console, parts) for parts in sections), nl=False)


def _items_data(kind: str) -> list[dict[str, Any]]:
    """Return what there is to choose from of one kind as data."""
    return [
        {
            "kind": kind,
            "name": item.name,
            "spellings": list(item.spellings()),
            "summary": item.summary,
            **({"group": item.group} if item.group else {}),
        }
        for item in catalogue.scan(kind)
    ]


def _runs_data(results: Path) -> list[dict[str, Any]]:
    """Return the outcomes of all runs as data, oldest first."""
    from robustbench_cli.cli.writing import left_out
    from robustbench_cli.report.outcome_data import outcome_data
    from robustbench_cli.runs import folders

    found = folders.distinct(results, left_out)
    return [outcome_data(run, folder) for folder, run in found.items()]


def _items(kind: str, _: "Console") -> "Parts":
    """Return the table of one kind: name, other spellings, and one sentence."""
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
    """Return the table of runs; where it is too wide, a line per run with the rest below it."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from robustbench_cli.cli.writing import left_out
    from robustbench_cli.report.model_names import has_own_model, short_model_name
    from robustbench_cli.report.number_trust import number_trusts
    from robustbench_cli.report.seed_groups import display_name
    from robustbench_cli.report.trust_legend import mark_meanings
    from robustbench_cli.runs import folders

    runs = folders.every(results, left_out)
    titles = ("run", "kind", "status", "subject", "data", "created", "accuracy")
    table = Table(*titles, box=None, pad_edge=False)
    cells = [
        (
            run.id,
            run.kind,
            run.status,
            short_model_name(name) if has_own_model(run) else name,
            run.settings.data.name or "",
            f"{run.created.astimezone():%Y-%m-%d %H:%M}",
            run.error or accuracies_in_words(run),
        )
        for run in runs
        for name in [display_name(run)]
    ]
    lines = [[printable(" ".join(cell.splitlines())) for cell in line] for line in cells]
    for line in lines:
        table.add_row(*map(Text, line))
    if not lines:
        return [Text(f"no runs in {str(results)!r}; try advbench train trades")]
    marks = mark_meanings(trust for run in runs for trust in number_trusts(run))
    notes = [Text(text) for text in (*marks, *["advbench show RUN says why"] * bool(marks))]
    if fits_console(console, table):
        return [table, *notes]
    # A name that is folded cannot be copied.
    below = [Padding(Text("  ".join(filter(None, rest))), (0, 0, 0, 2)) for _, *rest in lines]
    pairs = zip(lines, below, strict=True)
    return [*(part for line, rest in pairs for part in (Text(line[0]), rest)), *notes]


def accuracies_in_words(run: "Run") -> str:
    """Return a run's accuracies: clean and under each attack, or those of its last epoch so far.

    Numbers that are not sound carry their mark; one that means nothing is not among them.
    """
    from robustbench_cli.report.number_trust import (
        LOWER_BOUND_SIGN,
        attack_trust,
        certificate_trust,
        clean_trust,
        target_trust,
    )

    def written(label: str, share: float, trust: "NumberTrust | None") -> str:
        if trust is None:
            return f"{label} {share:.2%}"
        found = "" if trust.found is None else f"{trust.found:.2%}"
        return f"{label} {trust.written(f'{share:.2%}', found)}"

    words = []
    if run.clean_accuracy is not None:
        words.append(written("clean", run.clean_accuracy, clean_trust(run)))
    for label, outcome in run.attacks.items():
        words.append(written(label, outcome.robust_accuracy, attack_trust(run, label)))
    for label, aimed in run.targeted.items():
        if aimed.success_rate is not None:
            share = f"{aimed.success_rate:.2%} of {aimed.n}"
            reached = target_trust(run, label).written(share, sign=LOWER_BOUND_SIGN)
            words.append(f"{label} reached {reached}")
    for label, proof in run.certificates.items():
        words.append(written(label, proof.accuracy, certificate_trust(run)))
    last = run.history[-1] if run.history else {}
    words += [f"epoch {last.get('epoch')}/{run.settings.train.epochs}"] if last else []
    for split, title in (("train", "train"), ("val", "held out")):
        pair = last.get(f"{split}_clean"), last.get(f"{split}_robust")
        if None not in pair:
            words.append(f"{title}: clean {pair[0]:.1%} pgd10 {pair[1]:.1%}")
    return "  ".join(words)
