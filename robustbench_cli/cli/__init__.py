"""The command line: parse, call, print.

Modules that take long to import, torch above all, are imported when a command runs.
"""

import os
import signal
import sys
import traceback
from functools import cache
from types import FrameType
from typing import Annotated, Any

import typer

from robustbench_cli import __version__
from robustbench_cli.cli.exit_codes import ExitCode
from robustbench_cli.cli.imported_commands import CommandPlace, ImportedCommands
from robustbench_cli.cli.strict_command import MeasuringCommand, StrictCommand
from robustbench_cli.core.errors import RunError, UserError, stopped_program
from robustbench_cli.core.safe_text import printable
from robustbench_cli.distributed import env

HELP = """Train, attack and report adversarial robustness.

  advbench train trades --dataset digits      one defense, one command
  advbench eval --attack pgd20 --attack aa    the latest run under attack
  advbench audit                              can its number be believed?
  advbench report                             everything in one table

`advbench list` names every defense, attack, model, data set and preset; `advbench show NAME`
explains one. A mistake costs one line; add --debug anywhere for the traceback. Exit codes: 0 done,
1 a run failed, 2 a mistake, 3 not sound (--strict), 4 below --fail-under, 130 interrupted.
"""

COMMANDS = {
    "train": CommandPlace("train.train_command", "Train a model with a defense.", StrictCommand),
    "eval": CommandPlace(
        "evaluate.eval_command", "Measure a model under attacks.", MeasuringCommand
    ),
    "attack": CommandPlace(
        "attack.attack_command", "Craft adversarial examples, keep them.", MeasuringCommand
    ),
    "audit": CommandPlace(
        "audit.audit_command", "Try to prove a robust accuracy wrong.", MeasuringCommand
    ),
    "explain": CommandPlace(
        "explain.explain_command", "Draw what answers depend on; judge the maps.", MeasuringCommand
    ),
    "joint": CommandPlace(
        "joint.joint_command", "Fool several domains with one perturbation.", MeasuringCommand
    ),
    "invert": CommandPlace(
        "invert.invert_command",
        "Rebuild private images from what a model publishes.",
        MeasuringCommand,
    ),
    "retrieve": CommandPlace(
        "retrieve.retrieve_command", "Measure retrieval by metric learning.", StrictCommand
    ),
    "compare": CommandPlace(
        "compare.compare_command", "Compare two models on the same images.", StrictCommand
    ),
    "report": CommandPlace(
        "report.report_command", "Put every evaluation into one table.", StrictCommand
    ),
    "plot": CommandPlace("plot.plot_command", "Draw one figure as PNG, SVG or PDF.", StrictCommand),
    "list": CommandPlace(
        "listing.list_command", "Name everything there is to choose from.", StrictCommand
    ),
    "show": CommandPlace("show.show_command", "Explain one name and how to use it.", StrictCommand),
    "cache": CommandPlace(
        "cached.cache_command", "Show which decoded images are kept.", StrictCommand
    ),
    "detect": CommandPlace("detect.detect", "Tell errors from right answers by a detector."),
    "synth": CommandPlace("synth.synth", "Fit a generator of images, draw from it."),
    "study": CommandPlace("study.study", "Train and attack many models from one file."),
    "paper": CommandPlace("paper.paper", "Show what published tables say."),
    "reproduce": CommandPlace(
        "reproduce.reproduce_command", "Make a paper's numbers again here.", StrictCommand
    ),
    "bench": CommandPlace(
        "study.run_study", "Run a study by its name.", StrictCommand, hidden=True
    ),
}
"""Every command, in the order of ``advbench --help``."""


class AdvbenchProgram(ImportedCommands):
    """``advbench``."""

    places = COMMANDS


app = typer.Typer(
    cls=AdvbenchProgram,
    name="advbench",
    help=HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"advbench {__version__}")
        raise typer.Exit


@app.callback()
def global_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options of ``advbench`` itself; Typer shows HELP as its help."""


_COMPLETION = "_ADVBENCH_COMPLETE"
"""Set where a shell asks for completions; Typer ends the process when it has printed them."""


@cache
def program() -> Any:
    """Return the program with all its commands, made once; Typer's type for it is not public."""
    return typer.main.get_command(app)


def main(argv: list[str] | None = None) -> int:
    """Run a command; return its exit code (see ``ExitCode``).

    Args:
        argv: the words after ``advbench``; None: those that this process was started with.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in args
    args = [arg for arg in args if arg != "--debug"]
    args = args or ["--help"]
    command = program()
    _interrupt_on_terminate()
    try:
        code = command.main(args, prog_name="advbench", standalone_mode=False)
    except (UserError, RunError) as error:
        return _fail(
            error, debug, ExitCode.FAILED if isinstance(error, RunError) else ExitCode.MISTAKE
        )
    except BrokenPipeError:
        return _without_reader()
    except Exception as error:
        if type(error).__name__ == "Abort":  # Ctrl-C; the command has said how to go on
            return ExitCode.INTERRUPTED
        if type(error).__name__ == "NoArgsIsHelpError":  # a group of commands without one
            typer.echo(str(error))
            return ExitCode.MISTAKE
        if hasattr(error, "format_message"):  # what click found wrong with the options
            return _complain(error.format_message(), ExitCode.MISTAKE)
        return _fail(error, debug, ExitCode.FAILED)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if _COMPLETION in os.environ:  # the shell's question was answered
            raise
        if isinstance(error.__context__, BrokenPipeError):  # click makes a SystemExit of it
            return _without_reader()
        return _fail(stopped_program(error), debug, ExitCode.MISTAKE)
    return code if isinstance(code, int) else 0


def _without_reader() -> int:
    """The reader of a pipe went away, which is no failure: write nothing more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _fail(error: Exception, debug: bool, code: int) -> int:
    if debug:
        traceback.print_exception(error)
    known = isinstance(error, UserError | RunError)
    what = str(error) if known else f"{type(error).__name__}: {error} (--debug shows where)"
    return _complain(what, code)


def _complain(what: str, code: int) -> int:
    """Print one line, from one process: the others, if any, failed for the same reason."""
    if env.is_main_process():
        typer.echo(f"advbench: {printable(' '.join(what.split()))}", err=True)
    else:
        env.linger()
    return code


def _interrupt_on_terminate() -> None:
    """Treat SIGTERM as an interrupt, so that the run is marked as interrupted, its files whole."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    # Only the main thread may set handlers; elsewhere (tests, notebooks) the caller's stay.
    try:
        signal.signal(signal.SIGTERM, interrupt)
    except ValueError:
        return
