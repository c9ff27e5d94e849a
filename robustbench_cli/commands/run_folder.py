"""The folder of an evaluation: a new one, or that of an unfinished evaluation like it."""

from dataclasses import replace
from pathlib import Path

from robustbench_cli.commands.display import Display
from robustbench_cli.core.errors import UserError
from robustbench_cli.evaluation.budget import Budget
from robustbench_cli.runs import folders, records
from robustbench_cli.runs.records import Run


def open_run_folder(
    run: Run,
    results: Path,
    name: str | None,
    display: Display,
    *,
    budget: Budget | None = None,
    fresh: bool = False,
) -> tuple[Path, Run, bool]:
    """Return the folder, the record to go on with, and whether an unfinished evaluation is resumed.

    Args:
        run: the record of the evaluation that is asked for.
        results: the folder that holds the folders of runs.
        name: the folder's name that the user gave, if any.
        budget: of the evaluation that is asked for; with one, it goes on only with what a budget
            of the same kind, and no larger, has left.
        fresh: begin anew in any case.
    """
    unfinished = None if fresh else _unfinished(run, results, name, display, budget)
    if unfinished:
        begun = records.read(unfinished)
        # A look at more images goes on in the same process.
        resumed = [run.environment] if begun.widened is None or begun.status != "ok" else []
        return unfinished, replace(begun, n=run.n, resumed=[*begun.resumed, *resumed]), True
    return folders.new(results, run.id), run, False


def leaves_nothing(run: Run, error: BaseException, *, resumable: bool = True) -> bool:
    """Return whether a run that ends with this error leaves no folder (see ``recorder.recording``).

    A model that cannot be judged on clean images is the user's mistake: no folder stays.

    Args:
        resumable: whether the same command goes on with what an interrupt left.
    """
    if isinstance(error, UserError):
        return run.clean_accuracy is None
    return isinstance(error, KeyboardInterrupt) and not resumable


def _unfinished(
    run: Run, results: Path, name: str | None, display: Display, budget: Budget | None
) -> Path | None:
    """Return the folder of an unfinished evaluation of the same weights with the same settings."""
    wanted = (run.kind, run.config, run.weights, run.dataset)
    others = folders.found(results, lambda error: display.note(f"warning: {error}; left out"))
    for folder, other in reversed(others):
        same = (other.kind, other.config, other.weights, other.dataset) == wanted
        fits = budget is None or budget.continues(other.budget)
        if same and name in (None, other.id) and records.goes_on(other) and fits:
            return folder
    return None
