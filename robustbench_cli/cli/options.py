"""Options that several commands share, with the help that teaches them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from robustbench_cli.cli import completion
from robustbench_cli.distributed import env

DatasetOption = Annotated[
    str | None,
    typer.Option(
        help="digits, mnist, cifar10, ..., folder:PATH, or hf:PATH-or-NAME (default: digits).",
        autocompletion=completion.datasets,
    ),
]
TestSetOption = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="digits, mnist, cifar10, ..., folder:PATH, or hf:PATH-or-NAME (default: the run's "
        "own; with --model it must be given).",
        autocompletion=completion.datasets,
    ),
]
N = Annotated[int | None, typer.Option("--n", help="First N test examples (default: all).")]
NormOption = Annotated[str | None, typer.Option(help="Linf, L2 or L1.")]
EpsOption = Annotated[
    str | None, typer.Option(help="Radius for images in [0, 1], e.g. 8/255 or 0.3.")
]
MaskOption = Annotated[
    str | None,
    typer.Option(
        help="Which pixels may change: threshold:above=0.1, border:width=2, box:share=0.5, "
        "file:PATH.npz, saliency:top=0.2 (default: all).",
        autocompletion=completion.masks,
    ),
]
SeedOption = Annotated[int | None, typer.Option(help="Every random draw follows from it.")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, or auto.")]
DataDirOption = Annotated[
    Path, typer.Option(help="Where data sets are, and are downloaded to.", envvar="ADVBENCH_DATA")
]
OutOption = Annotated[Path, typer.Option(help="Where run folders go.", envvar="ADVBENCH_RESULTS")]
ResultsOption = Annotated[
    Path, typer.Option(help="Where run folders are.", envvar="ADVBENCH_RESULTS")
]
NameOption = Annotated[
    str | None, typer.Option(help="Name of the run's folder (default: made up).")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any other setting, e.g. --set train.select=best; repeat."),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print the result only.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
RunOption = Annotated[
    str | None,
    typer.Option(
        help="A training run: its id, a part of it, or its path (default: the latest).",
        autocompletion=completion.runs,
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        help="A model instead of a run: file.py:function, torchvision:resnet50, or a "
        "registered name with --weights."
    ),
]
WeightsOption = Annotated[
    Path | None, typer.Option(help="State dict for --model: .safetensors, .pt or .pth.")
]
RestartsOption = Annotated[
    int | None, typer.Option(help="Restarts of every attack that takes them.")
]
EotOption = Annotated[
    int | None,
    typer.Option(help="Gradients averaged per step, for randomised models, e.g. 20."),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        help="auto: search with the fastest model that can be vouched for; exact: with the model "
        "itself, in float32. The verdict is always float32 (default: auto)."
    ),
]
AttackBatchOption = Annotated[
    int | None, typer.Option(help="Examples attacked, or noisy copies classified, at once.")
]
LastIterateOption = Annotated[
    bool,
    typer.Option(
        "--last-iterate",
        help="Count only the last iterate, as old protocols do, instead of any iterate.",
    ),
]

AGAIN = "what is done is kept. Run the same command again to go on."
"""What an interrupted command leaves that takes itself up again."""
NOTHING = "nothing is kept of it."
"""What one leaves that does not."""


def given(**values: Any) -> dict[str, Any]:
    """Only what was typed: a falsy flag beats a preset, an absent one does not."""
    return {key: value for key, value in values.items() if value is not None}


def result(folder: Path) -> None:
    """Print where everything is: once, however many processes share the command."""
    if env.is_main_process():
        typer.echo(folder)


@contextmanager
def interruptible(how: str, record: Path | None = None) -> Iterator[None]:
    """On Ctrl-C say in one line what is kept and how to go on, then let the interrupt pass.

    Args:
        record: the file without which nothing was begun yet; None: there is something in any case.
    """
    try:
        yield
    except KeyboardInterrupt:
        if env.is_main_process():
            said = how if record is None or record.is_file() else "nothing was begun yet."
            typer.echo(f"\nadvbench: interrupted; {said}", err=True)
        raise
