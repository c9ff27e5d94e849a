"""``advbench study``: defenses x seeds x attacks x data from one file, then one table."""

import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_cli.cli import completion, options
from robustbench_cli.cli.default_command import DefaultCommandGroup
from robustbench_cli.cli.strict_command import StrictCommand
from robustbench_cli.core.errors import RunError, UserError, hint

if TYPE_CHECKING:
    from robustbench_cli.commands.study_jobs import Job

PAGE = "study.html"
"""The page of a study, in its folder."""
_MOST_NAMED = 4
"""Runs that a note names; of the others, how many there are."""


class StudyGroup(DefaultCommandGroup):
    """``advbench study FILE`` means ``advbench study run FILE``."""

    default = "run"


study = typer.Typer(
    cls=StudyGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Train and attack many models from one file (advbench study FILE), resumable.",
)


@study.command("new", cls=StrictCommand)
def new_study(
    name: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="A name that ends in .toml (default: study.toml)."),
    ] = None,
    debug: options.DebugOption = False,
) -> None:
    """Write a commented study file to start from.

    \b
    advbench study new mine.toml
    advbench study mine.toml --dry-run      the commands that it stands for
    """
    from robustbench_cli.cli.study_template import STUDY_TEMPLATE
    from robustbench_cli.core.atomic_files import write_bytes_atomically

    file = name or Path("study.toml")
    if file.suffix != ".toml":
        raise UserError(f"{str(file)!r}: the name of a study ends in .toml")
    if file.exists():
        raise UserError(f"{str(file)!r} exists: choose another name")
    if not file.parent.is_dir():
        raise UserError(f"{str(file)!r}: there is no folder {str(file.parent)!r}")
    text = STUDY_TEMPLATE.format(file=file.name)
    typer.echo(write_bytes_atomically(file, text.encode()))


@study.command("run", cls=StrictCommand)
def run_study(
    name: Annotated[
        str,
        typer.Argument(
            metavar="STUDY",
            help="A .toml file, or a shipped study by name (at-family).",
            autocompletion=completion.studies,
        ),
    ],
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            help="One of those that the study names; repeat (default: all but those on request).",
            autocompletion=completion.datasets,
        ),
    ] = None,
    only: Annotated[
        str | None, typer.Option(help="These runs only, e.g. trades,awp-trades.")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="These seeds instead of the study's own, e.g. 0,1.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", "--jobs", help="Jobs side by side (default: one per core).", min=1
        ),
    ] = None,
    launcher: Annotated[
        str,
        typer.Option(
            help="Where jobs run: local, or slurm:partition=gpu,gpus=1,minutes=600 (a cluster).",
            autocompletion=completion.launchers,
        ),
    ] = "local",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the commands instead of running them.")
    ] = False,
    device: options.DeviceOption = "auto",
    data_dir: options.DataDirOption = Path("data"),
    out: Annotated[
        Path | None,
        typer.Option(
            help="The study's folder, with one for each data set (default: results/STUDY)."
        ),
    ] = None,
    page: Annotated[
        bool,
        typer.Option(
            "--page/--no-page",
            help="Write the page of report --format html, too: study.html in the study's folder.",
        ),
    ] = True,
    json_: options.JsonOption = False,
    quiet: options.QuietOption = False,
    debug: options.DebugOption = False,
) -> None:
    """Train and attack everything that a study names; print one table and write its page.

    Jobs run side by side, a thread each, and show what they are at, the accuracy so far and the
    time left. What is finished is not done again, and a job that another process runs is waited
    for: after an interruption, or to add rows, run the same command. Attacks on several runs at
    once get a table of their own, and so do explain, invert and retrieve.

    \b
    advbench study mine.toml --workers 4
    advbench study at-family                           a shipped one, on the digits
    advbench study at-family --dataset mnist --data-dir ~/data
    advbench study at-family --only trades,mart --dry-run
    """
    from robustbench_cli.cli.report import print_report
    from robustbench_cli.cli.report_options import ReportOptions
    from robustbench_cli.cli.study_display import study_display
    from robustbench_cli.commands import study_file, study_jobs, study_run
    from robustbench_cli.commands.launchers import LAUNCHERS
    from robustbench_cli.core.registry import Spec
    from robustbench_cli.report import joint_table
    from robustbench_cli.report.measure_table import measured_kinds
    from robustbench_cli.report.robustness_table import finished
    from robustbench_cli.runs import folders

    started_by = LAUNCHERS.build(Spec.parse(launcher))
    found = study_file.load_study(name)
    if seeds is not None:
        found = study_file.with_seeds(found, seeds.split(","))
    folder = out or Path("results") / study_file.study_title(name)
    todo = []
    for data in study_file.chosen_data(found, dataset or []):
        common = {
            "--out": str(folder / study_file.plain_name(data)),
            "--data-dir": str(data_dir),
            "--device": device,
        }
        shared = study_jobs.SharedOptions(common=common, takes=accepted_options)
        chosen = only.split(",") if only is not None else []
        todo += study_jobs.study_jobs(found, data, shared, chosen)
    if dry_run:
        for job in todo:
            for each in job.commands:
                typer.echo(f"advbench {shlex.join(each.words)}")
        return
    note_made_otherwise(todo)
    many = workers or os.cpu_count() or 1
    failed: RunError | None = None
    with study_display(many, quiet) as told, options.interruptible(options.AGAIN):
        try:
            study_run.run_jobs(todo, started_by, many, folder, told)
        except RunError as error:  # the others were carried out: the table has them
            failed = error
    runs = [*folders.distinct(folder, lambda _: None).values()]
    if finished(runs):
        moved = any(run.settings.source for run in finished(runs))
        table = ReportOptions(results=folder, json_=json_, sources=moved)
        try:
            print_report(replace(table, columns=found.columns or None))
        except UserError as error:  # a part of the study need not have all columns
            if not found.columns:
                raise
            typer.echo(f"note: all columns are shown: {error}", err=True)
            print_report(table)
    if joint_table.done(runs) and not json_:
        typer.echo()
        print_report(ReportOptions(results=folder, joint=True))
    for kind in () if json_ else measured_kinds(runs):
        typer.echo()
        print_report(ReportOptions(results=folder, kind=kind))
    if page and finished(runs):
        _write_page(folder, quiet)
    if failed:
        raise failed


def note_made_otherwise(todo: "Sequence[Job]") -> None:
    """Say which finished runs are not made anew although their commands are others by now."""
    from robustbench_cli.commands import job_runner

    if other := [name for job in todo for name in job_runner.made_otherwise(job)]:
        more = f" and {len(other) - _MOST_NAMED} more" if len(other) > _MOST_NAMED else ""
        typer.echo(
            f"note: {', '.join(other[:_MOST_NAMED])}{more} came of other commands than the study "
            "has now, and stay as they are: to make them anew, remove their folders or name "
            "another --out",
            err=True,
        )


def _write_page(folder: Path, quiet: bool) -> None:
    """Write the page of a study and say where it is, or why there is none."""
    from robustbench_cli.cli.report import write_page

    try:
        said = f"page: {write_page(folder, folder / PAGE)}"
    except UserError as error:  # jinja2 is not installed: the table is there all the same
        said = f"no page: {error}"
    except OSError as error:
        said = f"no page: {folder / PAGE} cannot be written: {error.strerror}"
    if not quiet:
        typer.echo(said, err=True)


def accepted_options(words: Sequence[str]) -> set[str]:
    """Return the options that a command takes, with their dashes.

    Args:
        words: a command line without ``advbench``, e.g. ``synth fit gaussian``.

    Raises:
        UserError: the words name no command.
    """
    from robustbench_cli.cli import program

    command = program()
    rest = iter(words)
    while known := getattr(command, "commands", {}):
        name = next(rest, "")
        if name not in known:
            raise UserError(f"the study's {shlex.join(words)!r} is no command{hint(name, known)}")
        command = known[name]
    return {option for parameter in command.params for option in parameter.opts}
