"""``advbench report``: which table or picture, in which format."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_cli import catalogue
from robustbench_cli.cli import options
from robustbench_cli.cli.formats import ENDINGS, FORMATS, Page
from robustbench_cli.cli.tables import sheet, transfers
from robustbench_cli.errors import UserError, hint

if TYPE_CHECKING:
    from robustbench_cli.records import Run
    from robustbench_cli.report import Row


def report(
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
        typer.Option(
            help="Rows on this data set only.", autocompletion=catalogue.complete_datasets
        ),
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
        bool, typer.Option("--intervals", help="95 % confidence intervals (Wilson).")
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
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Instead: draw the curves of all sweeps as FILE.png and FILE.svg."
        ),
    ] = None,
    debug: options.Debug = False,
) -> None:
    """Put every finished evaluation into one table, seeds joined, the best in bold.

    Evaluations of one training run share a row. Runs that differ only in their seed are joined
    as mean and standard deviation. Rows are compared where data set, threat and n are the same.
    Sweeps and images from other models are left out: --sweeps, --plot and --transfer show them.

    \b
    advbench report                                    on the screen
    advbench report --dataset cifar10 --sort autoattack
    advbench report --columns clean,pgd20,autoattack --intervals --out table.tex
    advbench report --transfer --out transfer.md
    advbench report --plot curves                      curves.png and curves.svg
    """
    from robustbench_cli import folders, records

    table = {"--columns": columns, "--sort": sort, "--sweeps": sweeps}
    text = {"--format": format_, "--out": out, "--intervals": intervals}
    if plot is not None:
        _alone("--plot", {"--transfer": transfer, **table, **text})
    if transfer:
        _alone("--transfer", table)
    chosen = format_ or (ENDINGS.get(out.suffix.lower(), out.suffix) if out else "terminal")
    allowed = ENDINGS.values() if out else FORMATS
    if chosen not in allowed:
        raise UserError(f"no format {chosen!r} for {out or 'the screen'}{hint(chosen, allowed)}")
    runs = folders.every(results)
    _check(runs, results, dataset)
    if plot is not None:
        _draw(runs, dataset, plot)
        return
    if transfer:
        page = _transfers(runs, dataset, intervals)
    else:
        found = _rows(runs, dataset, intervals=intervals, sweeps=sweeps)
        page = sheet(found, columns=columns, sort=sort).page()
    written = FORMATS[chosen](page)
    if out is None:
        typer.echo(written, nl=False)
    else:
        with _writing("--out", out):
            records.write_bytes(out, written.encode())
    if not transfer:
        _left_out(runs, dataset, {run for row in found for run in row.runs})


def _alone(option: str, others: Mapping[str, object]) -> None:
    for name, value in others.items():
        if value:
            raise UserError(f"{option} goes without {name}")


@contextmanager
def _writing(option: str, *paths: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        named = str(paths[0])
        raise UserError(f"{option} {named!r} cannot be written: {error.strerror}") from None
    typer.echo(f"written to {' and '.join(map(str, paths))}", err=True)


def _check(runs: Sequence["Run"], results: Path, dataset: str | None) -> None:
    """Raise ``UserError`` where there is nothing to report."""
    from robustbench_cli.records import data_name
    from robustbench_cli.report import finished

    data = [data_name(run) for run in finished(runs)]
    if not data:
        raise UserError(
            f"no finished evaluation in {str(results)!r}; evaluate a run first: "
            "advbench eval --attack pgd20"
        )
    if dataset is not None and dataset not in data:
        raise UserError(f"no finished evaluation on dataset {dataset!r}{hint(dataset, data)}")


def _rows(
    runs: Sequence["Run"], dataset: str | None, *, intervals: bool, sweeps: bool
) -> list["Row"]:
    """The rows of the main table: sweeps where they are asked for, or are all there is."""
    from robustbench_cli.columns import source, usual
    from robustbench_cli.report import rows

    for keep in (lambda run: not source(run),) if sweeps else (usual, lambda run: not source(run)):
        every = rows(runs, intervals=intervals, keep=keep)
        if found := [row for row in every if dataset in (None, row.facts["dataset"].text)]:
            return found
    raise UserError("every finished evaluation tries another model's images: add --transfer")


def _left_out(runs: Sequence["Run"], dataset: str | None, used: set[str]) -> None:
    """Say what the main table does not show, and how to see it."""
    from robustbench_cli.columns import source, swept
    from robustbench_cli.records import data_name
    from robustbench_cli.report import finished

    done = [run for run in finished(runs) if dataset in (None, data_name(run))]
    shown = any(swept(run) and run.id in used for run in done)
    over = 0 if shown else sum(bool(swept(run)) for run in done)
    moved = sum(bool(source(run)) and not swept(run) for run in done)
    counts = {
        f"{over} of a sweep (--sweeps, --plot FILE)": over,
        f"{moved} with another model's images (--transfer)": moved,
    }
    if said := [text for text, number in counts.items() if number]:
        typer.echo(f"evaluations left out: {', '.join(said)}", err=True)


def _transfers(runs: Sequence["Run"], dataset: str | None, intervals: bool) -> Page:
    from robustbench_cli.transfer import matrices

    every = matrices(runs, intervals=intervals)
    found = [matrix for matrix in every if dataset in (None, matrix.about["dataset"])]
    if not found:
        raise UserError(
            "no finished evaluation tries another model's images; make one: "
            "advbench eval --attack pgd20 --run RUN --source OTHER"
        )
    return transfers(found)


def _draw(runs: Sequence["Run"], dataset: str | None, path: Path) -> None:
    from robustbench_cli.curves import panels
    from robustbench_cli.plot import draw

    path = path.with_suffix("") if path.suffix.lower() in (".png", ".svg") else path
    if path.suffix or not path.name:
        raise UserError(f"--plot {str(path)!r}: name a file; it gets the endings .png and .svg")
    found = panels(runs, dataset=dataset)
    if not found:
        raise UserError(
            "no finished sweep; make one: "
            "advbench eval --attack pgd20 --sweep eps=0,2/255,...,8/255"
        )
    files = [path.with_name(f"{path.name}{ending}") for ending in (".png", ".svg")]
    with _writing("--plot", *files):
        draw(found, path)
