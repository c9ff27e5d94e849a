"""Where an evaluation is kept: a folder of its own, or that of an unfinished one like it."""

from dataclasses import replace
from pathlib import Path

from robustbench_cli.commands.display import Display
from robustbench_cli.core.errors import UserError
from robustbench_cli.runs import folders, records
from robustbench_cli.runs.records import Run


def open_run_folder(
    run: Run, results: Path, name: str | None, display: Display, *, fresh: bool = False
) -> tuple[Path, Run, bool]:
    """A folder, the record to go on with, and whether an unfinished evaluation is taken up.

    Args:
        name: what the user calls the folder.
        fresh: begin anew in any case.
    """
    unfinished = None if fresh else _unfinished(run, results, name, display)
    if unfinished:
        begun = records.read(unfinished)
        return unfinished, replace(begun, resumed=[*begun.resumed, run.environment]), True
    return folders.new(results, run.id), run, False


def leaves_nothing(run: Run, error: BaseException, *, resumable: bool = True) -> bool:
    """Whether a run that ends with this error leaves nothing (see ``records.recording``).

    A model that cannot be judged on clean images is the user's mistake: no folder stays.

    Args:
        resumable: whether the same command goes on with what an interrupt left.
    """
    if isinstance(error, UserError):
        return run.clean_accuracy is None
    return isinstance(error, KeyboardInterrupt) and not resumable


def _unfinished(run: Run, results: Path, name: str | None, display: Display) -> Path | None:
    """The folder of an evaluation that asks the same of the same weights and is not done."""
    asked = (run.kind, run.config, run.weights, run.dataset)
    others = folders.found(results, lambda error: display.note(f"warning: {error}; left out"))
    for folder, other in reversed(others):
        same = (other.kind, other.config, other.weights, other.dataset) == asked
        if same and name in (None, other.id) and other.status in records.UNFINISHED:
            return folder
    return None
