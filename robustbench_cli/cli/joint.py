"""``advbench joint``: one perturbation per example against several domains."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_cli.cli import completion, options
from robustbench_cli.cli.eval_options import EvalOptions

if TYPE_CHECKING:
    from robustbench_cli.runs.records import Run


@options.takes_options(
    *("norm", "eps", "batch_size", "seed"),
    *("device", "data_dir", "out", "name", "quiet", "debug"),
)
def joint_command(
    run: Annotated[
        list[str] | None,
        typer.Option(
            help="A training run: its id, a part of it, or its path; repeat (default: the latest).",
            autocompletion=completion.runs,
        ),
    ] = None,
    transform: Annotated[
        list[str] | None,
        typer.Option(
            help="What is done to the image before the model: identity, flip, flip-vertical, "
            "brightness:by=0.1, gamma, zoom, rotate:degrees=30; repeat (default: identity).",
            autocompletion=completion.transforms,
        ),
    ] = None,
    images: Annotated[
        int | None, typer.Option(help="Neighbouring test images that share one perturbation.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="min-max, avg, or fixed ones as 0.5/0.3/0.2 (default: min-max)."),
    ] = None,
    gamma: Annotated[
        str | None,
        typer.Option(help="Large: weights stay alike; small: the worst domain gets all."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Gradient steps (default: 50).")] = None,
    attack: Annotated[
        str, typer.Option(help="More of its parameters: min-max:climbs=ce,beta=20.")
    ] = "min-max",
    n: Annotated[
        int | None,
        typer.Option(
            "--n", help="First N test images (default: all).", callback=options.at_least_one
        ),
    ] = None,
    *,
    flags: EvalOptions,
) -> None:
    """Fool several domains with one perturbation: runs, images, transforms, or mixtures of them.

    An example counts as fooled when all domains are wrong about it at the same image. The weights
    that the attack ends with tell which domains are the difficult ones. An interrupted attack goes
    on where it stopped when the same command is run again.

    \b
    advbench joint --run standard --run pgd-at --run trades --eps 0.15
    advbench joint --run pgd-at --images 5               one perturbation for five images
    advbench joint --run pgd-at --transform identity --transform flip --weights avg
    """
    from robustbench_cli.cli.progress import progress_display
    from robustbench_cli.commands.joint import run_joint
    from robustbench_cli.commands.joint_config import JointOptions
    from robustbench_cli.runs import records

    joint = JointOptions(
        runs=run or [None],
        transforms=transform or [],
        attack=attack,
        options=options.given(weights=weights, gamma=gamma, steps=steps),
        settings=options.given(
            images=images,
            n=n,
            threat=options.given(norm=flags.norm, eps=flags.eps),
            batch_size=flags.batch_size,
            seed=flags.seed,
        ),
        workspace=flags.workspace,
        command=sys.argv[1:],
        name=flags.name,
    )
    with progress_display(flags.quiet) as display, options.interruptible(options.AGAIN):
        folder = run_joint(joint, display)
    print_domains(records.read(folder), folder)


def print_domains(run: "Run", folder: Path) -> None:
    """Print the share of examples that are fooled in all domains, and a line per domain.

    Args:
        run: the record of the attack.
        folder: the folder of the run, printed last.
    """
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    from robustbench_cli.cli.console import rendered, table_console
    from robustbench_cli.core.threat_text import format_eps

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("domain", "clean", "accuracy", "weight"):
        table.add_column(title, justify="left" if title == "domain" else "right")
    for each in run.domains:
        shares = (f"{each.clean_accuracy:.2%}", f"{each.robust_accuracy:.2%}", f"{each.weight:.3f}")
        table.add_row(escape(each.name), *shares)
    threat, n = run.settings.threat, run.n or 0
    (outcome,) = run.attacks.values()
    fooled = n - outcome.correct
    alone = n - round((run.clean_accuracy or 0) * n)
    what = "groups" if run.settings.images > 1 else "images"
    counts = f"{fooled} of {n} {what}, {alone} of them without any change"
    lines = [
        f"{run.subject} on {run.settings.data_name}, {threat.norm} eps {format_eps(threat.eps)}",
        f"wrong in all domains: {fooled / n:.2%} ({counts})",
    ]
    notes = [Text(f"note: {note}") for note in run.notes]
    typer.echo(rendered(table_console(), [*map(Text, lines), table, *notes]), nl=False)
    typer.echo(folder)
