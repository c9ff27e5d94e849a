"""``advbench retrieve``: Recall@k of embeddings, clean and under attacks on retrieval."""

import sys
from typing import Annotated

import typer

from robustbench_cli.cli import completion, options
from robustbench_cli.core.errors import UserError


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
    from robustbench_cli.cli.measures import print_measures
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
    print_measures(folder, as_json=flags.json_)
