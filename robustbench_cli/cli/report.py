"""``advbench report``: which table or picture, in which format."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

import typer

from robustbench_cli.cli import completion, options
from robustbench_cli.cli.formats import Page
from robustbench_cli.cli.matrices import joints, transfers
from robustbench_cli.cli.tables import results_sheet
from robustbench_cli.cli.writing import format_of, left_out, put, writing
from robustbench_cli.core.errors import UserError, hint

if TYPE_CHECKING:
    from robustbench_cli.report.example_files import ExampleFiles
    from robustbench_cli.report.robustness_table import TableRow
    from robustbench_cli.runs.records import Run


class _Titled(Protocol):
    @property
    def about(self) -> Mapping[str, Any]:
        """The setting that all numbers of a table share, the data set included."""


_Table = TypeVar("_Table", bound=_Titled)


def report_command(
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            help="terminal, md, latex, csv or json (default: terminal, or as --out ends). "
            "csv and json hold fractions in full precision.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write to this file, e.g. table.tex, not to the screen.")
    ] = None,
    results: Annotated[
        Path, typer.Option(help="Where run folders are.", envvar="ADVBENCH_RESULTS")
    ] = Path("results"),
    dataset: Annotated[
        str | None,
        typer.Option(help="Rows on this data set only.", autocompletion=completion.datasets),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help="Which, in order: clean,pgd20,worst comes after what a row is; "
            "defense,clean,pgd20 is just that."
        ),
    ] = None,
    sort: Annotated[
        str | None, typer.Option(help="By this column, best first; -pgd20: worst first.")
    ] = None,
    intervals: Annotated[
        bool,
        typer.Option(
            "--intervals",
            help="95 % confidence intervals: Wilson's for one seed; for several, images and seeds "
            "are resampled.",
        ),
    ] = False,
    sweeps: Annotated[
        bool,
        typer.Option(
            "--sweeps",
            help="A column for each value of a sweep, too; done by itself where nothing else is.",
        ),
    ] = False,
    transfer: Annotated[
        bool,
        typer.Option(
            "--transfer",
            help="Instead: a table of sources and targets for each attack of eval --source.",
        ),
    ] = False,
    joint: Annotated[
        bool,
        typer.Option("--joint", help="Instead: a table for each set of domains of advbench joint."),
    ] = False,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="A B",
            help="Instead: two rows (by name, for all their seeds) or runs on the same images: the "
            "paired table, McNemar's test, the difference and its interval.",
        ),
    ] = None,
    paper: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Instead: a paper's tables with our numbers beside; advbench paper list.",
            autocompletion=completion.papers,
        ),
    ] = None,
    table: Annotated[
        str | None, typer.Option(help="With --paper: this table only, e.g. 5 or 2(a).")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Instead: draw the curves of all sweeps as FILE.png and FILE.svg."
        ),
    ] = None,
    debug: options.DebugOption = False,
) -> None:
    """Put every finished evaluation into one table, seeds joined, the best in bold.

    Evaluations of one training run share a row. Runs that differ only in their seed are joined
    as mean and standard deviation. Rows are compared where data set, threat and n are the same:
    the best is bold if a paired test over the images says so, else = marks what may be best.
    Sweeps, images from other models and joint attacks are left out: --sweeps, --plot, --transfer
    and --joint show them.
    With --paper every published number gets the closest one of ours beside it, the difference and
    what differs in setting; where there is none, the commands that would measure it.

    \b
    advbench report                                    on the screen
    advbench report --dataset cifar10 --sort autoattack
    advbench report --columns clean,pgd20,autoattack --intervals --out table.tex
    advbench report --paper trades --table 5           published numbers beside ours
    advbench report --transfer --out transfer.md
    advbench report --joint                            one perturbation, several domains
    advbench report --compare trades pgd-at            which is better, on the same images
    advbench report --plot curves                      curves.png and curves.svg
    """
    from robustbench_cli.commands.upgrade_records import comparable
    from robustbench_cli.report.example_files import ExampleFiles

    shape = {"--columns": columns, "--sort": sort, "--sweeps": sweeps}
    text = {"--format": format_, "--out": out, "--intervals": intervals}
    if plot is not None:
        others = {"--paper": paper, "--transfer": transfer, "--joint": joint}
        _alone("--plot", {**others, "--compare": compare, **shape, **text})
    if compare is not None:
        others = {"--paper": paper, "--transfer": transfer, "--joint": joint}
        _alone("--compare", {**others, **shape, "--dataset": dataset, "--intervals": intervals})
    if paper is not None:
        others = {"--transfer": transfer, "--joint": joint}
        _alone("--paper", {**others, **shape, "--intervals": intervals})
    elif table is not None:
        raise UserError(f"--table {table!r} is of a paper: name that, too, e.g. --paper trades")
    if transfer:
        _alone("--transfer", {"--joint": joint, **shape})
    if joint:
        _alone("--joint", shape)
    chosen = format_of(format_, out)
    folders = comparable(results, left_out)
    runs, files = [*folders.values()], ExampleFiles.of_runs(folders)
    if paper is not None:
        from robustbench_cli.cli.comparing import paper_page

        put(paper_page(paper, table, dataset, runs), chosen, out)
        return
    if joint:
        put(_joint(runs, dataset, intervals, files), chosen, out)
        return
    _check(runs, results, dataset)
    if compare is not None:
        put(_compared(runs, compare, files), chosen, out)
        return
    if plot is not None:
        _draw(runs, dataset, plot)
        return
    if transfer:
        page = _transfers(runs, dataset, intervals)
    else:
        found = _rows(runs, dataset, files, intervals=intervals, sweeps=sweeps)
        page = results_sheet(found, columns=columns, sort=sort).page()
    put(page, chosen, out)
    if not transfer:
        _left_out(runs, dataset, {run for row in found for run in row.runs})


def _alone(option: str, others: Mapping[str, object]) -> None:
    for name, value in others.items():
        if value:
            raise UserError(f"{option} goes without {name}")


def _check(runs: Sequence["Run"], results: Path, dataset: str | None) -> None:
    """Raise ``UserError`` where there is nothing to report."""
    from robustbench_cli.report.robustness_table import finished
    from robustbench_cli.report.row_names import data_names

    names = data_names(finished(runs))
    data = [*(short for short, _ in names), *names.values()]
    if not data:
        raise UserError(
            f"no finished evaluation in {str(results)!r}; evaluate a run first: "
            "advbench eval --attack pgd20"
        )
    if dataset is not None and dataset not in data:
        raise UserError(f"no finished evaluation on dataset {dataset!r}{hint(dataset, data)}")


def _rows(
    runs: Sequence["Run"],
    dataset: str | None,
    files: "ExampleFiles",
    *,
    intervals: bool,
    sweeps: bool,
) -> list["TableRow"]:
    """The rows of the main table: sweeps where they are asked for, or are all there is."""
    from robustbench_cli.report.columns import is_plain
    from robustbench_cli.report.robustness_table import rows

    for keep in (_own_images,) if sweeps else (is_plain, _own_images):
        every = rows(runs, intervals=intervals, keep=keep, files=files)
        if found := [row for row in every if dataset in (None, *row.datasets)]:
            return found
    raise UserError("every finished evaluation tries another model's images: add --transfer")


def _compared(runs: Sequence["Run"], names: tuple[str, str], files: "ExampleFiles") -> Page:
    from robustbench_cli.cli.paired import paired_page
    from robustbench_cli.report.paired_rows import paired_rows

    return paired_page(paired_rows(runs, names, files))


def _own_images(run: "Run") -> bool:
    return not run.settings.source


def _left_out(runs: Sequence["Run"], dataset: str | None, used: set[str]) -> None:
    """Say what the main table does not show, and how to see it."""
    from robustbench_cli.report import joint_table
    from robustbench_cli.report.robustness_table import finished
    from robustbench_cli.runs.records import data_name

    done = [run for run in finished(runs) if dataset in (None, data_name(run))]
    shown = any(run.settings.swept and run.id in used for run in done)
    over = 0 if shown else sum(bool(run.settings.swept) for run in done)
    moved = sum(bool(run.settings.source) and not run.settings.swept for run in done)
    shared = sum(dataset in (None, data_name(run)) for run in joint_table.done(runs))
    counts = {
        f"{over} of a sweep (--sweeps, --plot FILE)": over,
        f"{moved} with another model's images (--transfer)": moved,
        f"{shared} of several domains at once (--joint)": shared,
    }
    if said := [text for text, number in counts.items() if number]:
        typer.echo(f"evaluations left out: {', '.join(said)}", err=True)


def _transfers(runs: Sequence["Run"], dataset: str | None, intervals: bool) -> Page:
    from robustbench_cli.report.transfer_matrix import transfer_matrices

    none = (
        "no finished evaluation tries another model's images; make one: "
        "advbench eval --attack pgd20 --run RUN --source OTHER"
    )
    return transfers(_on(dataset, transfer_matrices(runs, intervals=intervals), none))


def _joint(
    runs: Sequence["Run"], dataset: str | None, intervals: bool, files: "ExampleFiles"
) -> Page:
    from robustbench_cli.report.joint_table import tables

    none = "no finished joint attack; make one: advbench joint --run RUN --run OTHER --eps 0.15"
    return joints(_on(dataset, tables(runs, intervals=intervals, files=files), none))


def _on(dataset: str | None, tables: Sequence[_Table], none: str) -> list[_Table]:
    """Those of a data set, or of all; ``UserError`` with the text ``none`` where there is none."""
    names = ("dataset", "own_dataset")
    found = [t for t in tables if dataset is None or dataset in [t.about[key] for key in names]]
    if not found:
        raise UserError(none)
    return found


def _draw(runs: Sequence["Run"], dataset: str | None, path: Path) -> None:
    from robustbench_cli.figures._sweep_plot import draw
    from robustbench_cli.report.sweep_curves import NOTHING_TO_DRAW, panels

    path = path.with_suffix("") if path.suffix.lower() in (".png", ".svg") else path
    if path.suffix or not path.name:
        raise UserError(f"--plot {str(path)!r}: name a file; it gets the endings .png and .svg")
    found = panels(runs, dataset=dataset)
    if not found:
        raise UserError(
            "no finished sweep; make one: "
            "advbench eval --attack pgd20 --sweep eps=0,2/255,...,8/255"
        )
    if not any(panel.curves for panel in found):
        raise UserError(NOTHING_TO_DRAW)
    files = [path.with_name(f"{path.name}{ending}") for ending in (".png", ".svg")]
    with writing("--plot", *files):
        draw(found, path)
