"""The options of ``advbench report``, each written once."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_cli.cli import completion, options

if TYPE_CHECKING:
    from robustbench_cli.report.selection import Selection


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """The options of a report as they were typed."""

    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            help="terminal, md, latex, csv, json or html (default: terminal, or as --out ends). "
            "csv and json hold fractions in full precision; html is a page with pictures, too.",
        ),
    ] = None
    json_: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False
    out: Annotated[
        Path | None, typer.Option(help="Write to this file, e.g. table.tex, not to the screen.")
    ] = None
    results: options.ResultsOption = Path("results")
    run: Annotated[
        list[str] | None,
        typer.Option(
            help="Evaluations of this run only, or this one: an id, or a part of one; repeat.",
            autocompletion=completion.runs,
        ),
    ] = None
    defense: Annotated[
        list[str] | None,
        typer.Option(
            help="Rows of this defense only; * stands for anything: 'trades*'; repeat.",
            autocompletion=completion.defenses,
        ),
    ] = None
    dataset: Annotated[
        str | None,
        typer.Option(help="Rows on this data set only.", autocompletion=completion.datasets),
    ] = None
    attack: Annotated[
        list[str] | None,
        typer.Option(
            help="Rows that were measured under this attack, and its column beside clean; * stands "
            "for anything; repeat.",
            autocompletion=completion.attacks,
        ),
    ] = None
    since: Annotated[
        str | None,
        typer.Option(metavar="DATE", help="Evaluations from this day on: 2026-11-01 or 2026-11."),
    ] = None
    until: Annotated[
        str | None, typer.Option(metavar="DATE", help="Evaluations up to this day, it included.")
    ] = None
    columns: Annotated[
        str | None,
        typer.Option(
            help="Which, in order: clean,pgd20,worst,minutes (CPU time of the training) come after "
            "what a row is; defense,clean,pgd20 is just that."
        ),
    ] = None
    sort: Annotated[
        str | None,
        typer.Option(
            help="By this column, best first; -pgd20: worst first (default: by data set, threat "
            "and name)."
        ),
    ] = None
    intervals: Annotated[
        bool,
        typer.Option(
            "--intervals",
            help="95 % confidence intervals: Wilson's for one seed; for several, images and seeds "
            "are resampled.",
        ),
    ] = False
    sweeps: Annotated[
        bool,
        typer.Option(
            "--sweeps",
            help="A column for each value of a sweep, too; done by itself where nothing else is.",
        ),
    ] = False
    sources: Annotated[
        bool,
        typer.Option(
            "--sources",
            help="A column for each attack with another model's images (eval --source), too.",
        ),
    ] = False
    transfer: Annotated[
        bool,
        typer.Option(
            "--transfer",
            help="Instead: a table of sources and targets for each attack of eval --source.",
        ),
    ] = False
    joint: Annotated[
        bool,
        typer.Option("--joint", help="Instead: a table for each set of domains of advbench joint."),
    ] = False
    kind: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="Instead: what explain, invert or retrieve measured.",
        ),
    ] = None
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="A B",
            help="Instead: two rows (by name, for all their seeds) or runs on the same images: the "
            "paired table, McNemar's test, the difference and its interval; advbench compare also "
            "names the images.",
        ),
    ] = None
    paper: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Instead: a paper's tables with our numbers beside; advbench paper list.",
            autocompletion=completion.papers,
        ),
    ] = None
    table: Annotated[
        str | None, typer.Option(help="With --paper: this table only, e.g. 5 or 2(a).")
    ] = None
    like: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="With --paper robustbench: the place of this run, or of its model, alone.",
            autocompletion=completion.runs,
        ),
    ] = None
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Instead: draw the curves of all sweeps as FILE.png, FILE.svg and FILE.pdf.",
        ),
    ] = None
    debug: options.DebugOption = False

    @property
    def selection(self) -> "Selection":
        """The filters; raise ``UserError`` for a date that is none."""
        from robustbench_cli.report.selection import Selection, first_moment, last_moment

        return Selection(
            runs=tuple(self.run or ()),
            defenses=tuple(self.defense or ()),
            dataset=self.dataset,
            attacks=tuple(self.attack or ()),
            since=None if self.since is None else first_moment("--since", self.since),
            until=None if self.until is None else last_moment("--until", self.until),
        )
