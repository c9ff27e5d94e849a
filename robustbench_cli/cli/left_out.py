"""What the main table of a report does not show."""

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from robustbench_cli.runs.records import Run


def print_left_out(runs: Sequence["Run"], dataset: str | None, used: set[str]) -> None:
    """Say what the main table does not show, and how to see it.

    A data set goes by the names that it has in the table: its own, and what tells it apart from
    others of that name.

    Args:
        runs: those that were to be shown, training runs included.
        dataset: the only data set of the table; None: all.
        used: the ids of the evaluations in the table.
    """
    from robustbench_cli.report import joint_table
    from robustbench_cli.report.robustness_table import finished
    from robustbench_cli.report.row_names import data_key, data_names

    def of_data(some: Sequence["Run"]) -> list["Run"]:
        names = data_names(some)
        keys = [(run, data_key(run)) for run in some]
        return [run for run, key in keys if dataset in (None, key[0], names[key])]

    every = finished(runs)
    done = of_data(every)
    parts = [run for run in every if run.settings.data_name == dataset and run not in done]
    of_part = next((data_key(run)[0] for run in parts), "")
    shown = any(run.settings.swept and run.id in used for run in done)
    over = 0 if shown else sum(bool(run.settings.swept) for run in done)
    foreign = [run for run in done if run.settings.source and run.id not in used]
    moved = sum(not run.settings.swept for run in foreign)
    shared = len(of_data(joint_table.done(runs)))
    counts = {
        f"{over} of a sweep (--sweeps, --plot FILE)": over,
        f"{moved} with another model's images (--transfer, --sources)": moved,
        f"{shared} of several domains at once (--joint)": shared,
        f"{len(parts)} on a part of {dataset} (--dataset {shlex.quote(of_part)})": len(parts),
    }
    if said := [text for text, number in counts.items() if number]:
        typer.echo(f"evaluations left out: {', '.join(said)}", err=True)
