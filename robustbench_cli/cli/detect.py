"""``advbench detect fit`` and ``advbench detect eval``: detectors of a model's errors."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_cli.cli import completion, options
from robustbench_cli.cli.eval_options import EvalOptions, eval_request
from robustbench_cli.cli.strict_command import MeasuringCommand, StrictCommand

if TYPE_CHECKING:
    from rich.table import Table

    from robustbench_cli.runs.records import Run

detect = typer.Typer(invoke_without_command=True, rich_markup_mode=None)


@detect.callback()
def detect_command(ctx: typer.Context) -> None:
    """Tell a model's errors from its right answers: fit a detector, then attack the model."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


@detect.command("fit", cls=StrictCommand)
@options.takes_options("run", "device", "data_dir", "out", "name", "quiet", "debug")
def detect_fit_command(
    detector: Annotated[
        str,
        typer.Argument(
            help="gaussian, gaussian:score=posterior, knn, softmax, ...",
            autocompletion=completion.detectors,
        ),
    ],
    flags: EvalOptions,
) -> None:
    """Fit a detector on what a trained run makes of its training images.

    The folder gets detector.safetensors: tensors only.

    \b
    advbench detect fit gaussian                the latest run
    advbench detect fit knn:k=20 --run tla
    """
    from robustbench_cli.cli.progress import progress_display
    from robustbench_cli.commands.detect import DetectorFitting, fit_detector
    from robustbench_cli.commands.load_model import Choice

    fitting = DetectorFitting(
        detector=detector,
        choice=Choice(run=flags.run),
        workspace=flags.workspace,
        command=sys.argv[1:],
        name=flags.name,
    )
    with progress_display(flags.quiet) as display, options.interruptible(options.NOTHING):
        folder = fit_detector(fitting, display)
    typer.echo(folder)


@detect.command("eval", cls=MeasuringCommand)
@options.takes_options(
    *("run", "n", "norm", "eps", "restarts", "last_iterate", "no_checks", "strict"),
    *("batch_size", "seed"),
    *("device", "data_dir", "out", "name", "set_", "quiet", "debug"),
)
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
    *,
    flags: EvalOptions,
) -> None:
    """Attack a run and measure how well detectors tell its errors from its right answers (AUROC).

    Attacks do not stop at the first error but go on to the surest one. The figure depends on which
    images count: those under attack, or these and the clean ones; both are told.

    \b
    advbench detect eval --attack pgd20
    advbench detect eval --attack pgd20 --run tla --eps 0.25 --n 200 --detector gaussian
    """
    from robustbench_cli.cli.eval_summary import refuse_unsound
    from robustbench_cli.cli.progress import progress_display
    from robustbench_cli.commands.detect import evaluate_detector

    with progress_display(flags.quiet) as display, options.interruptible(options.NOTHING):
        request = eval_request(replace(flags, attack=attack), "detect")
        folder = evaluate_detector(replace(request, early_stop=False), detector or [], display)
    print_detections(folder)
    if flags.strict:
        refuse_unsound(folder)


def print_detections(folder: Path) -> None:
    """Print how well each detector tells errors under each attack, then the accuracies."""
    from rich.markup import escape
    from rich.table import Table

    from robustbench_cli.cli.console import rendered, table_console
    from robustbench_cli.cli.eval_summary import print_evaluation
    from robustbench_cli.report.number_trust import attack_trust, derived_text
    from robustbench_cli.report.trust_legend import DERIVED_MEANING
    from robustbench_cli.runs import records

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("attack", "detector", "images", "AUROC", "wrong", "right"):
        number = title in ("AUROC", "wrong", "right")
        table.add_column(title, justify="right" if number else "left")
    run, bounds = records.read(folder), False
    for each in run.detections:
        trust = attack_trust(run, each.attack)
        bounds |= trust.trust == "upper bound"
        share = "" if each.auroc is None else derived_text(trust, f"{each.auroc:.2%}")
        counts = ("", "") if trust.withheld else (str(each.wrong), str(each.right))
        table.add_row(escape(each.attack), escape(each.detector), each.population, share, *counts)
    notes = [DERIVED_MEANING] * bounds
    points = points_table(run)
    typer.echo(rendered(table_console(), [table, *notes, "", points, POINTS_MEANING, ""]), nl=False)
    print_evaluation(folder)


POINTS_MEANING = (
    "fpr: clean images that may be flagged; robust: right, or an error that is flagged. It is an "
    "upper\nbound, as these attacks do not know of the detector: eval --detector RUN aims at both"
)


def points_table(run: "Run") -> "Table":
    """Return the accuracies of the model that rejects what each detector flags, per attack."""
    from rich.markup import escape
    from rich.table import Table

    from robustbench_cli.report.number_trust import BOUND_SIGN, attack_trust, clean_trust

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("attack", "detector", "fpr", "flagged", "clean", "detected", "robust"):
        table.add_column(title, justify="left" if title in ("attack", "detector") else "right")
    for each in run.detections:
        trust, clean = attack_trust(run, each.attack), clean_trust(run)
        for point in each.points:
            detected = "" if point.detected is None else f"{point.detected:.2%}"
            robust = f"{BOUND_SIGN}{point.robust_accuracy:.2%}"
            table.add_row(
                escape(each.attack),
                escape(each.detector),
                f"{point.fpr:.0%}",
                clean.written(f"{point.flagged:.2%}"),
                clean.written(f"{point.clean_accuracy:.2%}"),
                detected and trust.written(detected),
                trust.written(robust, sign=""),
            )
    return table
