"""``advbench bench``: train and evaluate a family of defenses, then print one table."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from robustbench_cli.cli import completion, options
from robustbench_cli.core.errors import UserError, hint


def bench_command(
    name: Annotated[
        str,
        typer.Argument(
            help="A bench by name (at-family), or a .toml file.",
            autocompletion=completion.benches,
        ),
    ],
    dataset: Annotated[
        str | None,
        typer.Option(
            help="One of those that the bench names (default: its first).",
            autocompletion=completion.datasets,
        ),
    ] = None,
    only: Annotated[
        str | None, typer.Option(help="These runs only, e.g. trades,awp-trades.")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="These seeds instead of the bench's own, e.g. 0,1.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(help="Runs side by side, a thread each (default: one per core).", min=1),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the commands instead of running them.")
    ] = False,
    device: options.DeviceOption = "auto",
    data_dir: options.DataDirOption = Path("data"),
    out: Annotated[
        Path | None, typer.Option(help="Where run folders go (default: results/NAME-DATASET).")
    ] = None,
    quiet: options.QuietOption = False,
    debug: options.DebugOption = False,
) -> None:
    """Train and evaluate a whole family of defenses, several seeds each; print one table.

    Attacks on several of its runs at once get a table of their own.

    What is finished is not done again: after an interruption run the same command.

    \b
    advbench bench at-family                       on the digits
    advbench bench at-family --dataset mnist --data-dir ~/data
    advbench bench at-family --only trades,mart --dry-run
    """
    from robustbench_cli.cli.progress import job_progress
    from robustbench_cli.cli.report import report_command
    from robustbench_cli.commands import bench as command
    from robustbench_cli.report import joint_table
    from robustbench_cli.runs import folders

    found = command.load_bench(name)
    if seeds is not None:
        found = command.with_seeds(found, seeds.split(","))
    data = dataset or next(iter(found.data))
    folder = out or Path("results") / f"{Path(name).stem}-{data}"
    common = {"--out": str(folder), "--data-dir": str(data_dir), "--device": device}
    chosen = only.split(",") if only is not None else []
    todo = command.bench_jobs(
        found, data, command.SharedOptions(common=common, takes=accepted_options), chosen
    )
    if dry_run:
        for job in todo:
            for each in job.commands:
                typer.echo(f"advbench {shlex.join(each.words)}")
        return
    with job_progress(len(todo), quiet) as told, options.interruptible(options.AGAIN):
        command.run_jobs(todo, folder, jobs or os.cpu_count() or 1, told)
    report_command(results=folder)
    if joint_table.done([*folders.distinct(folder, lambda _: None).values()]):
        typer.echo()
        report_command(results=folder, joint=True)


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
            raise UserError(f"the bench's {shlex.join(words)!r} is no command{hint(name, known)}")
        command = known[name]
    return {option for parameter in command.params for option in parameter.opts}
