"""``advbench bench``."""

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from robustbench_cli import completion
from robustbench_cli.cli import options


def bench(
    name: Annotated[
        str,
        typer.Argument(
            help="A bench by name (at-family), or a .toml file.",
            autocompletion=completion.benches,
        ),
    ],
    dataset: options.Dataset = None,
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
    device: options.Device = "auto",
    data_dir: options.DataDir = Path("data"),
    out: Annotated[
        Path | None, typer.Option(help="Where run folders go (default: results/NAME-DATASET).")
    ] = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Train and evaluate a whole family of defenses, several seeds each; print one table.

    What is finished is not done again: after an interruption run the same command.

    \b
    advbench bench at-family                       on the digits
    advbench bench at-family --dataset mnist --data-dir ~/data
    advbench bench at-family --only trades,mart --dry-run
    """
    from robustbench_cli.cli.display import counted
    from robustbench_cli.cli.report import report
    from robustbench_cli.run import bench as command

    found = command.load(name)
    if seeds:
        found = command.with_seeds(found, seeds.split(","))
    data = dataset or next(iter(found.data))
    folder = out or Path("results") / f"{Path(name).stem}-{data}"
    common = ["--out", str(folder), "--data-dir", str(data_dir), "--device", device]
    chosen = [part for part in (only or "").split(",") if part]
    todo = command.jobs(found, data, common, chosen)
    if dry_run:
        for job in todo:
            for _, words in job.commands:
                typer.echo(f"advbench {shlex.join(words)}")
        return
    with counted(len(todo), quiet) as told, options.interruptible(options.AGAIN):
        command.carry_out(todo, folder, jobs or os.cpu_count() or 1, told)
    report(results=folder)
