"""``advbench plot``: one figure from the runs that are named."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_cli.cli import completion, options
from robustbench_cli.core.errors import UserError

if TYPE_CHECKING:
    from robustbench_cli.figures import Feedback

_KEPT = "runs that are measured are kept; the same command goes on with the others."


def plot_command(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="history, eps, steps, tradeoff, certified-curve, roc, surface or landscape; with "
            "parameters, too: surface:image=3, landscape:n=512 (advbench show surface).",
            autocompletion=completion.figures,
        ),
    ],
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN",
            help="Training runs: ids, parts of them, or paths (default: the latest; of eps, "
            "steps, tradeoff, certified-curve and roc: all that have what is drawn).",
            autocompletion=completion.runs,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="FILE.png, FILE.svg or FILE.pdf (default: KIND.png).")
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option("--format", "-f", help="png, svg or pdf (default: as --out ends, or png)."),
    ] = None,
    results: options.ResultsOption = Path("results"),
    data_dir: options.DataDirOption = Path("data"),
    device: options.DeviceOption = "auto",
    quiet: options.QuietOption = False,
    debug: options.DebugOption = False,
) -> None:
    """Draw one figure of one or several runs, as PNG, SVG or PDF.

    surface and landscape measure the models; their numbers are kept beside the picture as
    FILE.json, and the same command draws it again from there without measuring.

    \b
    advbench plot history trades mart               robust overfitting, two runs overlaid
    advbench plot steps --out steps.svg             what eval --sweep steps=... recorded
    advbench plot tradeoff --format pdf             tradeoff.pdf, for a paper
    advbench plot tradeoff:attack=pgd20             clean against robust accuracy, over beta
    advbench plot certified-curve                   what eval --certify proved, over the radius
    advbench plot roc                               what detectors flag, of detect eval
    advbench plot surface:image=3 trades standard   the loss around a test image
    advbench plot landscape trades trades-awp       the loss around the weights
    """
    from robustbench_cli.core.registry import Spec
    from robustbench_cli.figures import FIGURES, Material, _style

    spec = FIGURES.resolve(Spec.parse(kind))
    figure, file = FIGURES.build(spec), _picture_file(spec.name, out, format_)
    if not os.access(file.parent, os.W_OK):
        raise UserError(f"--out {str(file)!r}: {str(file.parent)!r} is no folder to write to")
    _style.needed()  # before hours are spent on numbers
    with _feedback(quiet) as feedback, options.interruptible(_KEPT):
        material = Material(
            names=tuple(runs or ()),
            results=results,
            data_dir=data_dir,
            device=device,
            numbers=file.with_suffix(".json"),
            feedback=feedback,
        )
        paint = figure.prepare(material)
    try:
        _style.save_figure(paint, file)
    except OSError as error:
        raise UserError(f"--out {str(file)!r} cannot be written: {error.strerror}") from None
    typer.echo(file)


def _picture_file(kind: str, out: Path | None, format_: str | None) -> Path:
    """Return the file that ``--out`` and ``--format`` mean; raise ``UserError`` if none."""
    from robustbench_cli.figures import _style

    known = [ending[1:] for ending in _style.IMAGE_FORMATS]
    if format_ is not None and format_.lower() not in known:
        raise UserError(f"--format {format_!r}: choose {', '.join(known)}")
    file = out or Path(f"{kind}.{(format_ or known[0]).lower()}")
    ending = file.suffix.lower()[1:]
    if ending not in known:
        listed = ", ".join(_style.IMAGE_FORMATS)
        raise UserError(f"--out {str(file)!r}: end it in one of {listed}")
    if format_ and format_.lower() != ending:
        raise UserError(f"--out {str(file)!r} is no {format_}: leave --format out, or mend one")
    return file


@contextmanager
def _feedback(quiet: bool) -> "Iterator[Feedback]":
    """Notes as lines and, on a terminal, a bar for each run that is measured."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress, TaskID

    from robustbench_cli.figures import Feedback

    console = Console(stderr=True)
    if quiet:
        yield Feedback()
    elif not console.is_terminal:
        yield Feedback(note=partial(typer.echo, err=True))
    else:
        tasks: dict[str, TaskID] = {}
        with Progress(console=console) as bars:

            def progress(label: str, done: int, of: int) -> None:
                if label not in tasks:
                    tasks[label] = bars.add_task(escape(label), total=of)
                bars.update(tasks[label], completed=done)

            yield Feedback(note=lambda text: console.print(escape(text)), progress=progress)
