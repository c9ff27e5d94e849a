"""``advbench reproduce``: make a paper's numbers again, as far as this machine can."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_cli.cli import completion, options
from robustbench_cli.core.errors import RunError, UserError, in_one_line

if TYPE_CHECKING:
    from robustbench_cli.commands.paper_study import PaperModel, PaperStudy
    from robustbench_cli.commands.study_jobs import Job
    from robustbench_cli.commands.training_estimate import TrainingEstimate
    from robustbench_cli.commands.workspace import Workspace
    from robustbench_cli.papers.paper import Published

SHORT = 30.0
"""Minutes of a training below which three seeds are made."""
_SEEDS = (0, 1, 2)


def reproduce_command(
    name: Annotated[
        str,
        typer.Argument(
            metavar="PAPER",
            help="A paper by name: advbench paper list.",
            autocompletion=completion.papers,
        ),
    ],
    table: Annotated[str | None, typer.Option(help="One of its tables (default: all).")] = None,
    dataset: Annotated[
        str | None, typer.Option(help="The numbers on this data set only, e.g. mnist.")
    ] = None,
    hours: Annotated[
        float, typer.Option(help="Leave out trainings that would take longer here.", min=0.0)
    ] = 1.0,
    seeds: Annotated[
        str | None,
        typer.Option(
            help="Seeds of every model, e.g. 0,1 (default: 0,1,2 where a training takes less than "
            "half an hour, else 0)."
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", "--jobs", help="Jobs side by side (default: one per core).", min=1
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Say what would be made, by trials of a few updates; make nothing."
        ),
    ] = False,
    device: options.DeviceOption = "auto",
    data_dir: options.DataDirOption = Path("data"),
    out: Annotated[
        Path | None,
        typer.Option(help="Where the runs go (default: results/reproduction/PAPER)."),
    ] = None,
    quiet: options.QuietOption = False,
    debug: options.DebugOption = False,
) -> None:
    """Train and attack what a paper's tables hold, in its setting; print ours beside its numbers.

    How long each training takes is estimated from a few of its updates on this machine; attacks
    come on top. What cannot be made here is named with the reason, or with the hours. What is
    finished is not done again: after an interruption, or with more --hours, run the same command.
    A dry run downloads no data.

    \b
    advbench reproduce gce --dry-run
    advbench reproduce gce --data-dir ~/data
    advbench reproduce trades --table 5 --dataset mnist --hours 12
    """
    from robustbench_cli.cli.report import print_report
    from robustbench_cli.cli.report_options import ReportOptions
    from robustbench_cli.cli.study import note_made_otherwise
    from robustbench_cli.cli.study_display import study_display
    from robustbench_cli.commands import study_run
    from robustbench_cli.commands.launchers import LAUNCHERS
    from robustbench_cli.commands.paper_study import paper_study
    from robustbench_cli.commands.study_file import read_seeds
    from robustbench_cli.commands.workspace import Workspace
    from robustbench_cli.core.registry import Spec
    from robustbench_cli.papers.choice import chosen_cells
    from robustbench_cli.papers.howto import Known
    from robustbench_cli.papers.reading import load_paper

    typed = () if seeds is None else read_seeds(seeds.split(","))
    paper = load_paper(name)
    plan = paper_study(paper, chosen_cells(paper, table, dataset), Known.scan())
    folder = out or Path("results") / "reproduction" / paper.name
    there = Workspace(out=folder, data_dir=data_dir, device=device)
    estimates, broken = _estimates(plan, there, dry_run)
    made = [model for model in plan.models if _fits(estimates[model.name], hours)]
    if not quiet:
        for line in _plan_lines(plan, estimates, made, hours):
            typer.echo(line, err=not dry_run)
    failed = None
    if broken:
        first = next(iter(broken.items()))
        failed = RunError(f"{len(broken)} of {len(plan.models)} failed; {first[0]}: {first[1]}")
    todo: list[Job] = []
    for model in made:
        short = _minutes(estimates[model.name]) < SHORT
        wanted = typed or (_SEEDS if short else _SEEDS[:1])
        todo += _jobs(model, wanted, folder, data_dir, device)
    if dry_run:
        for job in todo:
            for each in job.commands:
                typer.echo(f"advbench {shlex.join(each.words)}")
        if failed:
            raise failed
        return
    if not todo:
        nothing = f"nothing of {paper.name} can be made here within {hours:g} hours"
        raise failed or UserError(nothing)
    note_made_otherwise(todo)
    many = workers or os.cpu_count() or 1
    with study_display(many, quiet) as told, options.interruptible(options.AGAIN):
        try:
            study_run.run_jobs(todo, LAUNCHERS.build(Spec.parse("local")), many, folder, told)
        except RunError as error:  # the others were carried out: the table has them
            failed = RunError(f"{error}; {failed}") if failed else error
    print_report(ReportOptions(results=folder, paper=paper.name, table=table, dataset=dataset))
    if failed:
        raise failed


def _estimates(
    plan: "PaperStudy", there: "Workspace", dry_run: bool
) -> "tuple[dict[str, TrainingEstimate | str], dict[str, str]]":
    """Return the length of each training, or why there is none, and what failed unexpectedly."""
    from robustbench_cli.commands.training_estimate import absent_data, kept_estimate

    estimates: dict[str, TrainingEstimate | str] = {}
    broken: dict[str, str] = {}
    for model in plan.models:
        try:
            if dry_run and (data := absent_data(model.train, there)):
                estimates[model.name] = (
                    f"its length is not known: the estimate needs {data}, which is not in "
                    f"{there.data_dir}, and a dry run downloads nothing"
                )
                continue
            estimates[model.name] = kept_estimate(model.train, there, keep=not dry_run)
        except (UserError, RunError) as error:
            estimates[model.name] = str(error)
        except Exception as error:  # one training that cannot be tried must not end the others
            broken[model.name] = in_one_line(error)
            estimates[model.name] = f"failed: {broken[model.name]}"
    return estimates, broken


def _jobs(
    model: "PaperModel", seeds: tuple[int, ...], folder: Path, data_dir: Path, device: str
) -> "list[Job]":
    from robustbench_cli.cli.study import accepted_options
    from robustbench_cli.commands.paper_study import study_of
    from robustbench_cli.commands.study_jobs import SharedOptions, study_jobs

    common = {"--out": str(folder), "--data-dir": str(data_dir), "--device": device}
    shared = SharedOptions(common=common, takes=accepted_options)
    return study_jobs(study_of([model], seeds), model.dataset, shared)


def _fits(estimate: "TrainingEstimate | str", hours: float) -> bool:
    """Return whether a training can be had, and is short enough."""
    return not isinstance(estimate, str) and estimate.minutes <= 60 * hours


def _minutes(estimate: "TrainingEstimate | str") -> float:
    return float("inf") if isinstance(estimate, str) else estimate.minutes


def _plan_lines(
    plan: "PaperStudy",
    estimates: "dict[str, TrainingEstimate | str]",
    made: "list[PaperModel]",
    hours: float,
) -> list[str]:
    """Return what is made and what is left out, with the reasons, a line each."""
    lines = [
        f"{model.name}: {_numbers(model.cells)}, about {_time(_minutes(estimates[model.name]))} "
        "a training"
        for model in made
    ]
    for model in plan.models:
        found = estimates[model.name]
        if isinstance(found, str):
            lines.append(f"left out: {model.name}: {_numbers(model.cells)}: {found}")
        elif model not in made:
            took = f"about {_time(found.minutes)} a training, --hours {hours:g}"
            lines.append(f"left out: {model.name}: {_numbers(model.cells)}: {took}")
    lines += [f"left out: {_numbers(cells)}: {why}" for why, cells in plan.left_out.items()]
    return lines


def _numbers(cells: "tuple[Published, ...] | list[Published]") -> str:
    return f"{len(cells)} number" + "s" * (len(cells) > 1)


def _time(minutes: float) -> str:
    return f"{minutes / 60:.1f} hours" if minutes >= 90 else f"{minutes:.1f} minutes"
