"""``advbench invert``: a privacy audit of what a model publishes."""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_cli.cli import completion, options
from robustbench_cli.cli.eval_options import EvalOptions, chosen_model
from robustbench_cli.cli.pictures import draw_where_possible
from robustbench_cli.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, kw_only=True)
class InvertOptions(EvalOptions):
    """The options of ``advbench invert`` beside those that name the model."""

    expose: Annotated[
        list[str] | None,
        typer.Option(
            help="What the model publishes beside its confidences: gradient, grad-cam, ...; repeat "
            "(default: prediction, confidences only).",
            autocompletion=completion.explanations,
        ),
    ] = None
    fusion: Annotated[
        str,
        typer.Option(help="How the attacker reads a map: flatten, unet, or both."),
    ] = "both"
    surrogate: Annotated[
        bool,
        typer.Option(
            "--surrogate",
            help="The model publishes confidences only; the attacker explains a model of their own "
            "and learns to draw its maps from confidences (attention transfer).",
        ),
    ] = False
    attacker: Annotated[
        int | None, typer.Option(min=1, help="The number of the attacker's images (default: all).")
    ] = None
    epochs: Annotated[
        int, typer.Option(min=1, help="Most passes through the attacker's images.")
    ] = 300
    patience: Annotated[
        int, typer.Option(min=1, help="Epochs without a better validation error before the end.")
    ] = 10
    lr: Annotated[float, typer.Option(help="Adam's learning rate.")] = 1e-4
    width: Annotated[
        int,
        typer.Option(min=32, help="Size of the attacker's net: width/s channels at side s."),
    ] = 2048
    classifier: Annotated[
        str | None,
        typer.Option(
            help="The architecture of the independent classifier and of the surrogate (default: "
            "the usual one of the data set).",
            autocompletion=completion.models,
        ),
    ] = None
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images per step: 128.")] = None


_OWN = ("expose", "fusion", "surrogate", "attacker", "n")
_NET = ("epochs", "patience", "lr", "width", "batch_size", "classifier", "seed")
_MODEL = (
    *("run", "checkpoint", "model", "weights", "weights_key", "normalize", "mean", "std"),
    *("resize", "classes", "dataset"),
)


@options.takes_options(
    *_OWN, *_MODEL, *_NET, *("device", "data_dir", "out", "name", "json_", "quiet", "debug")
)
def invert_command(flags: InvertOptions) -> None:
    """Measure how well an attacker rebuilds private images from what a model publishes.

    The attacker trains a network on images of their own, which the model has never seen, with what
    the model publishes of them, and rebuilds test images. Confidences alone, the mean image, the
    mean of the predicted class, and maps that belong to other images are measured beside it. The
    folder gets reconstructions.npz and a picture.

    \b
    advbench train pgd-at --set train.limit=700      leave images to an attacker
    advbench invert --expose gradient --expose grad-cam
    advbench invert --expose gradient --surrogate --n 200
    """
    from robustbench_cli.cli.measures import print_measures
    from robustbench_cli.cli.progress import progress_display
    from robustbench_cli.commands.invert import run_inversion
    from robustbench_cli.commands.invert_request import Inversion
    from robustbench_cli.training.inverter import InverterTraining

    if not 0 < flags.lr < float("inf"):
        raise UserError(f"--lr {flags.lr:g}: give a number above 0, e.g. 0.0001")
    if flags.seed is not None and flags.seed < 0:
        raise UserError(f"--seed {flags.seed}: give a number from 0 on")
    request = Inversion(
        choice=chosen_model(flags),
        expose=tuple(flags.expose or ()),
        fusion=flags.fusion,
        surrogate=flags.surrogate,
        attacker=flags.attacker,
        n=flags.n,
        width=flags.width,
        training=InverterTraining(
            epochs=flags.epochs,
            patience=flags.patience,
            batch_size=flags.batch_size or 128,
            lr=flags.lr,
            seed=flags.seed or 0,
        ),
        classifier=flags.classifier,
        workspace=flags.workspace,
        command=sys.argv[1:],
        name=flags.name,
    )
    with progress_display(flags.quiet) as display, options.interruptible(options.AGAIN):
        folder = run_inversion(request, display)
        _draw(folder, display.note)
    print_measures(folder, as_json=flags.json_)


def _draw(folder: Path, note: "Callable[[str], None]") -> None:
    """Draw the first reconstructions into the folder."""
    from robustbench_cli.figures import _style
    from robustbench_cli.figures.reconstructions import paint_reconstructions
    from robustbench_cli.runs import records

    def draw() -> None:
        paint = partial(paint_reconstructions, records.read(folder), folder)
        _style.save_figure(paint, folder / "reconstructions.png")

    draw_where_possible(draw, note)
