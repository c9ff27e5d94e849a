"""``advbench detect fit`` and ``advbench detect eval``: which answers not to trust."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from robustbench_cli.cli import completion, options
from robustbench_cli.cli.eval_options import EvalOptions, request

detect = typer.Typer(invoke_without_command=True, rich_markup_mode=None)


@detect.callback()
def detect_command(ctx: typer.Context) -> None:
    """Tell a model's errors from its right answers: fit a detector, then attack the model."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


@detect.command("fit")
def detect_fit_command(
    detector: Annotated[
        str,
        typer.Argument(
            help="gaussian, gaussian:score=posterior, knn, softmax, ...",
            autocompletion=completion.detectors,
        ),
    ],
    run: options.RunOption = None,
    device: options.DeviceOption = "auto",
    data_dir: options.DataDirOption = Path("data"),
    out: options.OutOption = Path("results"),
    name: options.NameOption = None,
    quiet: options.QuietOption = False,
    debug: options.DebugOption = False,
) -> None:
    """Fit a detector on what a trained run makes of its training images.

    The folder gets detector.safetensors: tensors only.

    \b
    advbench detect fit gaussian                the latest run
    advbench detect fit knn:k=20 --run tla
    """
    from robustbench_cli.cli.progress import progress_display
    from robustbench_cli.commands import detect as detecting
    from robustbench_cli.commands.load_model import Choice
    from robustbench_cli.commands.workspace import Workspace

    asked = detecting.DetectorFitting(
        detector=detector,
        choice=Choice(run=run),
        workspace=Workspace(out=out, data_dir=data_dir, device=device),
        command=sys.argv[1:],
        name=name,
    )
    with progress_display(quiet) as display, options.interruptible(options.NOTHING):
        folder = detecting.fit_detector(asked, display)
    typer.echo(folder)


@detect.command("eval")
def detect_eval_command(
    attack: Annotated[
        list[str],
        typer.Option(help="pgd20, autoattack, ...; repeat.", autocompletion=completion.attacks),
    ],
    detector: Annotated[
        list[str] | None,
        typer.Option(
            help="Of those fitted on this run; repeat (default: all of them).",
            autocompletion=completion.detectors,
        ),
    ] = None,
    run: options.RunOption = None,
    n: options.N = None,
    norm: options.NormOption = None,
    eps: options.EpsOption = None,
    restarts: options.RestartsOption = None,
    last_iterate: options.LastIterateOption = False,
    batch_size: options.AttackBatchOption = None,
    seed: options.SeedOption = None,
    device: options.DeviceOption = "auto",
    data_dir: options.DataDirOption = Path("data"),
    out: options.OutOption = Path("results"),
    name: options.NameOption = None,
    set_: options.SetOption = None,
    quiet: options.QuietOption = False,
    debug: options.DebugOption = False,
) -> None:
    """Attack a run and measure how well detectors tell its errors from its right answers (AUROC).

    Attacks do not stop at the first error but go on to the surest one. The figure depends on which
    images count: those under attack, or these and the clean ones; both are told.

    \b
    advbench detect eval --attack pgd20
    advbench detect eval --attack pgd20 --run tla --eps 0.25 --n 200 --detector gaussian
    """
    from robustbench_cli.cli.progress import progress_display
    from robustbench_cli.commands import detect as detecting

    asked = EvalOptions(
        attacks=attack,
        run=run,
        n=n,
        norm=norm,
        eps=eps,
        restarts=restarts,
        last_iterate=last_iterate,
        batch_size=batch_size,
        seed=seed,
        device=device,
        data_dir=data_dir,
        out=out,
        name=name,
        changes=set_ or [],
    )
    with progress_display(quiet) as display, options.interruptible(options.NOTHING):
        wanted = replace(request(asked, "detect"), early_stop=False)
        folder = detecting.evaluate_detector(wanted, detector or [], display)
    print_detections(folder)


def print_detections(folder: Path) -> None:
    """What each detector makes of each attack, and where the files are."""
    from rich.markup import escape
    from rich.table import Table

    from robustbench_cli.cli.console import rendered, table_console
    from robustbench_cli.cli.eval_summary import print_evaluation
    from robustbench_cli.runs import records

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("attack", "detector", "images", "AUROC", "wrong", "right"):
        number = title in ("AUROC", "wrong", "right")
        table.add_column(title, justify="right" if number else "left")
    for each in records.read(folder).detections:
        share = "" if each.auroc is None else f"{each.auroc:.2%}"
        counts = (share, str(each.wrong), str(each.right))
        table.add_row(escape(each.attack), escape(each.detector), each.population, *counts)
    typer.echo(rendered(table_console(), [table, ""]), nl=False)
    print_evaluation(folder)
