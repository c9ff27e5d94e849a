"""Options that several commands share, and how a command takes a group of them.

Each option is written once: its type, its help, its spelling and its shell completion in an
``Annotated`` type here, its default in the dataclass that holds it.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from robustbench_cli.cli import completion
from robustbench_cli.commands.workspace import Workspace
from robustbench_cli.core.errors import UserError
from robustbench_cli.distributed import env

DatasetOption = Annotated[
    str | None,
    typer.Option(
        help="digits, mnist, cifar10, ..., folder:PATH, csv:FILE, npz:FILE, imagenet:PATH, or "
        "hf:PATH-or-NAME (default: digits).",
        autocompletion=completion.datasets,
    ),
]
TestSetOption = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="digits, mnist, cifar10, ..., folder:PATH, csv:FILE, npz:FILE, imagenet:PATH, or "
        "hf:PATH-or-NAME (default: the run's "
        "own; with --model it must be given).",
        autocompletion=completion.datasets,
    ),
]


def at_least_one(value: int | None) -> int | None:
    """Return the number of examples that was typed; refuse one that reads like "all"."""
    if value is not None and value < 1:
        raise UserError(f"--n {value}: give a number from 1 on, or leave --n out for all examples")
    return value


FirstNOption = Annotated[
    int | None,
    typer.Option("--n", help="First N test examples (default: all).", callback=at_least_one),
]
OnlyClassesOption = Annotated[
    str | None,
    typer.Option(
        help="Test images of these classes only, by name or number: cat,dog. The model keeps all "
        "its classes."
    ),
]
BalancedOption = Annotated[
    bool,
    typer.Option("--balanced", help="As many test images of each class as of any other."),
]
ShuffleOption = Annotated[
    int | None,
    typer.Option(min=0, help="Count the first N in a random order that follows from this seed."),
]
NormOption = Annotated[str | None, typer.Option(help="Linf, L2, L1, L0, patch or spatial.")]
EpsOption = Annotated[
    str | None,
    typer.Option(
        help="Radius for images in [0, 1], e.g. 8/255; L0: pixels; patch: its side; spatial: part "
        "of 30 degrees and 3 pixels."
    ),
]
MaskOption = Annotated[
    str | None,
    typer.Option(
        help="Which pixels may change: threshold:above=0.1, border:width=2, box:share=0.5, "
        "file:PATH.npz, saliency:top=0.2 (default: all).",
        autocompletion=completion.masks,
    ),
]
DefendOption = Annotated[
    list[str] | None,
    typer.Option(
        help="An input defense in front of the model: lgs, watermark, jpeg:quality=75, ...; "
        "repeat, the first one gets the image.",
        autocompletion=completion.input_defenses,
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
JsonOption = Annotated[
    bool,
    typer.Option("--json", help="Print the outcome as JSON on standard output, and nothing else."),
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
        help="A model instead of a run: file.py:function, timm:NAME, hf:PATH-or-NAME, "
        "robustbench:NAME, torchvision:NAME, a program (.pt2, .pt), or a registered name with "
        "--weights."
    ),
]
WeightsOption = Annotated[
    Path | None, typer.Option(help="State dict for --model: .safetensors, .pt or .pth.")
]
WeightsKeyOption = Annotated[
    str | None,
    typer.Option(help="Key of the state dict in that file, e.g. ema (default: found)."),
]
NormalizeOption = Annotated[
    str | None,
    typer.Option(
        help="What --model expects: imagenet, cifar10, mnist, signed, or none (default: as it "
        "says itself)."
    ),
]
MeanOption = Annotated[
    str | None,
    typer.Option(help="Mean of each channel in [0, 1] that --model expects: 0.5 or 0.5,0.4,0.4."),
]
StdOption = Annotated[str | None, typer.Option(help="Standard deviation of each channel, with it.")]
ResizeOption = Annotated[
    int | None,
    typer.Option(help="Side to which --model is to resize images, as part of the model.", min=1),
]
ClassesOption = Annotated[
    str | None,
    typer.Option(
        help="Which of --model's classes the data's are: map.json, or numbers or names in order "
        "(for a part of the data there is --only-classes)."
    ),
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

NoChecksOption = Annotated[
    bool,
    typer.Option("--no-checks", help="Leave out the checks of the numbers; the record says so."),
]
StrictOption = Annotated[
    bool,
    typer.Option("--strict", help="End with exit code 3 if the checks find any number not sound."),
]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of every command that leaves a run: its folders, its device, its name, its output."""

    device: DeviceOption = "auto"
    data_dir: DataDirOption = Path("data")
    out: OutOption = Path("results")
    name: NameOption = None
    set_: SetOption = None
    json_: JsonOption = False
    quiet: QuietOption = False
    debug: DebugOption = False

    @property
    def workspace(self) -> Workspace:
        """The folders and the device of the run."""
        return Workspace(out=self.out, data_dir=self.data_dir, device=self.device)


def takes_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Let a command take the fields of its last parameter, a dataclass, as options of its own.

    Typer reads a command's options from its signature: the decorated function has one with the
    command's other parameters first, then the fields, and hands the dataclass to the command.

    Args:
        names: the fields that this command takes, in the order in which ``--help`` shows them;
            none: all, with those of the dataclass before those of its base.  Fields that it does
            not take have their defaults.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        *own, last = inspect.signature(command, eval_str=True).parameters.values()
        options = last.annotation
        chosen = _option_parameters(options, names)

        @wraps(command)
        def run(**typed: Any) -> None:
            group = options(**{each.name: typed.pop(each.name) for each in chosen})
            command(**typed, **{last.name: group})

        parameters = [*(each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own), *chosen]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return decorate


def _option_parameters(options: type, names: tuple[str, ...]) -> list[inspect.Parameter]:
    """Return the fields of a dataclass as parameters that Typer reads."""
    types = get_type_hints(options, include_extras=True)
    defaults = {each.name: each.default for each in fields(options)}
    own_first = [name for each in options.__mro__ for name in inspect.get_annotations(each)]
    return [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=types[name]
        )
        for name in names or dict.fromkeys(own_first)
    ]


AGAIN = "what is done is kept. Run the same command again to go on."
"""Said when a command is interrupted that goes on where it stopped."""
NOTHING = "nothing is kept of it."
"""Said when one is interrupted that begins anew."""


def given(**values: Any) -> dict[str, Any]:
    """Return the values that were typed: 0 and false go over a preset, an absent one does not."""
    return {key: value for key, value in values.items() if value is not None}


def print_result(folder: Path, *, as_json: bool = False) -> None:
    """Print the folder of a run, or its outcome: once, however many processes share the command."""
    if env.is_main_process():
        if as_json:
            from robustbench_cli.cli.json_output import print_outcome

            print_outcome(folder)
        else:
            typer.echo(folder)


@contextmanager
def interruptible(message: str, record: Path | None = None) -> Iterator[None]:
    """On Ctrl-C print in one line what is kept and how to go on, then let the interrupt pass.

    Args:
        message: what to print.
        record: a file that is there as soon as something was begun, so that the message is true;
            None: it is true in any case.
    """
    try:
        yield
    except KeyboardInterrupt:
        if env.is_main_process():
            said = message if record is None or record.is_file() else "nothing was begun yet."
            typer.echo(f"\nadvbench: interrupted; {said}", err=True)
        raise
