"""``advbench retrieve``: Recall@k of embeddings, clean and under attacks on retrieval."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_cli.cli import completion, options
from robustbench_cli.core.errors import UserError

if TYPE_CHECKING:
    from robustbench_cli.runs.outcomes import Measure


@options.takes_options("device", "data_dir", "out", "name", "json_", "quiet", "debug")
def retrieve_command(
    run: options.RunOption = None,
    attack: Annotated[
        list[str] | None,
        typer.Option(
            help="untargeted, ca+, ca-, qa+, qa-, tma, es, ltm, gtm, gtt, or ers for the nine "
            "that make up that score; repeat (default: none).",
            autocompletion=completion.retrieval_attacks,
        ),
    ] = None,
    eps: Annotated[
        list[str] | None,
        typer.Option(
            help="Radius for images in [0, 1], e.g. 77/255; repeat (default: the training's)."
        ),
    ] = None,
    norm: Annotated[
        str | None, typer.Option(help="Linf, L2 or L1 (default: the training's).")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of every attack (default: its own, 32).")
    ] = None,
    n: Annotated[
        int | None,
        typer.Option(
            "--n",
            help="First N test images are queries; all stay in the gallery (default: all).",
            callback=options.at_least_one,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Every random draw follows from it.")] = 0,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Images under attack at a time; numbers do not depend on it.")
    ] = 256,
    *,
    flags: options.RunOptions,
) -> None:
    """Measure how well a metric-learning run finds test images of the same class.

    Each test image is a query, all others are the gallery. Attacks change the query (ca+ and ca-:
    an image that is found); the gallery stays clean. A query that is wrong when clean counts as
    wrong.

    \b
    advbench retrieve                                     the latest run, clean images
    advbench retrieve --attack untargeted --eps 0.05 --eps 0.10 --run est
    advbench retrieve --attack ers --eps 77/255 --n 1000
    """
    from robustbench_cli.cli.progress import progress_display
    from robustbench_cli.commands.retrieve import Retrieval, run_retrieval

    request = Retrieval(
        run=run,
        attacks=attack or [],
        eps=eps or [],
        norm=norm,
        steps=steps,
        n=n,
        seed=seed,
        batch_size=batch_size,
        workspace=flags.workspace,
        command=sys.argv[1:],
        name=flags.name,
    )
    if request.eps and not request.attacks:
        raise UserError("--eps goes with an --attack, e.g. --attack untargeted")
    with progress_display(flags.quiet) as display, options.interruptible(options.NOTHING):
        folder = run_retrieval(request, display)
    if flags.json_:
        options.print_result(folder, as_json=True)
    else:
        print_retrieval(folder)
        typer.echo(folder)


def print_retrieval(folder: Path) -> None:
    """Print the measures: a row for clean images and for each attack, a column for each measure."""
    from rich.markup import escape
    from rich.table import Table

    from robustbench_cli.cli.console import rendered, table_console
    from robustbench_cli.runs import records

    run = records.read(folder)
    names = list(dict.fromkeys(each.name for each in run.measures))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("images")
    for name in names:
        table.add_column(name, justify="right")
    for of in dict.fromkeys(each.of for each in run.measures):
        found = {each.name: each for each in run.measures if each.of == of}
        table.add_row(escape(of), *(_cell(found.get(name)) for name in names))
    notes = dict.fromkeys(each.note for each in run.measures if each.note)
    typer.echo(rendered(table_console(), [table, *map(escape, notes)]), nl=False)


def _cell(measure: "Measure | None") -> str:
    if measure is None:
        return ""
    if measure.value is None:
        return "-"
    return f"{measure.value:.2%}" if measure.unit == "%" else f"{measure.value:.3f}"
