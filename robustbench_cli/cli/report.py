"""``advbench report``: which table or picture, in which format."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustbench_cli.cli import options
from robustbench_cli.cli.formats import TABLE_FORMATS, WITH_INTERVALS, Page
from robustbench_cli.cli.left_out import print_left_out
from robustbench_cli.cli.other_tables import joint_page, measured_page_of, transfer_page
from robustbench_cli.cli.report_options import ReportOptions
from robustbench_cli.cli.tables import results_sheet
from robustbench_cli.cli.writing import format_of, left_out, put, writing
from robustbench_cli.core.errors import UserError, hint

if TYPE_CHECKING:
    from robustbench_cli.report.example_files import ExampleFiles
    from robustbench_cli.report.robustness_table import TableRow
    from robustbench_cli.report.selection import Selection
    from robustbench_cli.runs.records import Run


@options.takes_options()
def report_command(flags: ReportOptions) -> None:
    """Put every finished evaluation into one table, seeds joined, the best in bold.

    Evaluations of one training run share a row. Runs that differ only in their seed are joined
    as mean and standard deviation. Rows are compared where data set, threat and n are the same:
    the best is bold if a paired test over the images says so, else = marks what may be best.
    Rows stand in the order of data set, threat and name, whatever was evaluated when. Sweeps,
    images from other models and joint attacks are left out: --sweeps, --plot, --sources, --transfer
    and --joint show them.
    With --paper every published number gets the closest one of ours beside it, the difference and
    what differs in setting; where there is none, the commands that would measure it.

    \b
    advbench report                                    on the screen
    advbench report --dataset cifar10 --sort autoattack
    advbench report --defense 'trades*' --attack autoattack --since 2026-11-01
    advbench report --columns clean,pgd20,autoattack --intervals --out table.tex
    advbench report --paper trades --table 5           published numbers beside ours
    advbench report --out study.html                   a page with curves and images
    advbench report --paper robustbench --like RUN     its place in the leaderboard
    advbench report --transfer --out transfer.md
    advbench report --joint                            one perturbation, several domains
    advbench report --kind invert                      what a privacy audit measured
    advbench report --compare trades pgd-at            which is better, on the same images
    advbench report --plot curves                      curves.png, curves.svg and curves.pdf
    """
    print_report(flags)


def print_report(flags: ReportOptions) -> None:
    """Print or write the tables that the options ask for.

    Raises:
        UserError: options that exclude each other, or nothing to show.
    """
    from robustbench_cli.commands.upgrade_records import comparable
    from robustbench_cli.report.example_files import ExampleFiles

    _check_together(flags)
    selection, dataset = flags.selection, flags.dataset
    format_ = flags.format_ or ("json" if flags.json_ else None)
    chosen = format_of(format_, flags.out)
    folders = comparable(flags.results, left_out)
    runs, files = selection.of_runs([*folders.values()]), ExampleFiles.of_runs(folders)
    if flags.paper is not None:
        put(_published(flags, flags.paper, runs, files), chosen, flags.out)
        return
    if flags.joint:
        put(joint_page(runs, dataset, flags.intervals, files), chosen, flags.out)
        return
    if flags.kind is not None:
        put(measured_page_of(flags.kind, runs, dataset), chosen, flags.out)
        return
    _check(runs, flags.results, dataset)
    if flags.compare is not None:
        put(_compared(runs, flags.compare, files), chosen, flags.out)
        return
    if flags.plot is not None:
        _draw(runs, dataset, flags.plot)
        return
    if flags.transfer:
        put(transfer_page(runs, dataset, flags.intervals), chosen, flags.out)
        return
    flags = replace(flags, intervals=flags.intervals or chosen in WITH_INTERVALS)
    page, used = _main_page(flags, folders, runs, files)
    put(page, chosen, flags.out)
    print_left_out(runs, dataset, used)


def write_page(results: Path, file: Path) -> Path:
    """Write the main table of some runs as a page of HTML, with its figures; return the file.

    Raises:
        UserError: there is nothing to show, or jinja2 is not installed.
        OSError: the file cannot be written.
    """
    from robustbench_cli.commands.upgrade_records import comparable
    from robustbench_cli.core.atomic_files import write_bytes_atomically
    from robustbench_cli.report.example_files import ExampleFiles

    folders = comparable(results, lambda _: None)
    files = ExampleFiles.of_runs(folders)
    flags = ReportOptions(results=results, intervals=True)
    page, _ = _main_page(flags, folders, [*folders.values()], files)
    return write_bytes_atomically(file, TABLE_FORMATS["html"](page).encode())


def _main_page(
    flags: ReportOptions,
    folders: Mapping[Path, "Run"],
    runs: Sequence["Run"],
    files: "ExampleFiles",
) -> tuple[Page, set[str]]:
    """Return the main table, and the ids of the evaluations in it.

    Args:
        folders: all records by folder.
        runs: those that the filters leave.
    """
    from robustbench_cli.cli.study_page import study_extras

    selection = flags.selection
    found = _rows(runs, selection, files, flags)
    named = ",".join(selection.columns(found)) or None
    sheet = results_sheet(found, columns=flags.columns or named, sort=flags.sort)
    page = replace(sheet.page(), extras=partial(study_extras, sheet, folders, flags.results))
    return page, {run for row in found for run in row.runs}


def _published(
    flags: ReportOptions, name: str, runs: Sequence["Run"], files: "ExampleFiles"
) -> Page:
    """The numbers of a paper with ours beside, or our models among those of a leaderboard."""
    from robustbench_cli.papers.leaderboard import find_board, load_board

    if board := find_board(name):
        from robustbench_cli.cli.boards import placed_page

        of = load_board(board)
        return placed_page(of, flags.table, runs, files, dataset=flags.dataset, like=flags.like)
    from robustbench_cli.cli.comparing import paper_page

    if flags.like is not None:
        raise UserError(f"--like is for a leaderboard (robustbench), and {name!r} is none")
    return paper_page(name, flags.table, flags.dataset, runs)


def _check_together(flags: ReportOptions) -> None:
    """Raise ``UserError`` for options that exclude each other."""
    rows = {"--defense": flags.defense, "--attack": flags.attack}
    shape = {"--columns": flags.columns, "--sort": flags.sort, "--sweeps": flags.sweeps, **rows}
    shape |= {"--sources": flags.sources}
    text = {"--format": flags.format_, "--json": flags.json_, "--out": flags.out}
    tables = {"--paper": flags.paper, "--transfer": flags.transfer, "--joint": flags.joint}
    tables |= {"--kind": flags.kind}
    intervals = {"--intervals": flags.intervals}
    if flags.json_ and flags.format_:
        raise UserError("--json is --format json: leave one of them out")
    if flags.plot is not None:
        _alone("--plot", {**tables, "--compare": flags.compare, **shape, **text, **intervals})
    if flags.compare is not None:
        _alone("--compare", {**tables, **shape, "--dataset": flags.dataset, **intervals})
    if flags.paper is not None:
        others = {name: value for name, value in tables.items() if name != "--paper"}
        _alone("--paper", {**others, **shape, **intervals})
    elif flags.like is not None:
        raise UserError(f"--like {flags.like!r} goes with --paper robustbench")
    elif flags.table is not None:
        raise UserError(
            f"--table {flags.table!r} is of a paper: name that, too, e.g. --paper trades"
        )
    if flags.transfer:
        _alone("--transfer", {"--joint": flags.joint, "--kind": flags.kind, **shape})
    if flags.joint:
        _alone("--joint", {"--kind": flags.kind, **shape})
    if flags.kind is not None:
        _alone("--kind", {**shape, **intervals})


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
    runs: Sequence["Run"], selection: "Selection", files: "ExampleFiles", flags: ReportOptions
) -> list["TableRow"]:
    """The rows of the main table, in the order of data set, threat and name.

    Sweeps are among them where they are asked for, or are all there is.
    """
    from robustbench_cli.report.columns import is_plain
    from robustbench_cli.report.robustness_table import rows

    usual = [_own_images] if flags.sweeps else [is_plain, _own_images]
    moved = [_any_run if flags.sweeps else _one_radius]
    for keep in moved if flags.sources else usual:
        every = rows(runs, intervals=flags.intervals, keep=keep, files=files)
        if every := [row for row in every if flags.dataset in (None, *row.datasets)]:
            return sorted(selection.of_rows(every), key=_place)
    raise UserError("every finished evaluation tries another model's images: add --transfer")


def _place(row: "TableRow") -> tuple[Any, ...]:
    """Return what the main table is sorted by; rows that are equal in it stay as they are made."""
    facts = row.facts
    return facts["dataset"].rank, facts["eps"].rank, facts["defense"].text.lower()


def _compared(runs: Sequence["Run"], names: tuple[str, str], files: "ExampleFiles") -> Page:
    from robustbench_cli.cli.paired import paired_page
    from robustbench_cli.report.paired_rows import paired_rows

    return paired_page(paired_rows(runs, names, files))


def _own_images(run: "Run") -> bool:
    return not run.settings.source


def _any_run(_: "Run") -> bool:
    return True


def _one_radius(run: "Run") -> bool:
    return not run.settings.swept


def _draw(runs: Sequence["Run"], dataset: str | None, path: Path) -> None:
    from robustbench_cli.figures._style import IMAGE_FORMATS
    from robustbench_cli.figures._sweep_plot import draw, picture_files
    from robustbench_cli.report.sweep_curves import NOTHING_TO_DRAW, panels

    path = path.with_suffix("") if path.suffix.lower() in IMAGE_FORMATS else path
    if path.suffix or not path.name:
        listed = ", ".join(IMAGE_FORMATS)
        raise UserError(f"--plot {str(path)!r}: name a file; it gets the endings {listed}")
    found = panels(runs, dataset=dataset)
    if not found:
        raise UserError(
            "no finished sweep; make one: "
            "advbench eval --attack pgd20 --sweep eps=0,2/255,...,8/255"
        )
    if not any(panel.curves for panel in found):
        raise UserError(NOTHING_TO_DRAW)
    with writing("--plot", *picture_files(path)):
        draw(found, path)
