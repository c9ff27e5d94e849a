"""Records of older versions, with the settings that have come since at their defaults.

torch comes with what knows those defaults: it is loaded where a record lacks some, not before.
"""

from dataclasses import replace
from pathlib import Path

from robustbench_cli import folders
from robustbench_cli.errors import UserError
from robustbench_cli.records import Run, plain
from robustbench_cli.report import unlike


def every(results: Path) -> list[Run]:
    """All runs below ``results``, oldest first, so that they can be compared.

    Raises:
        UserError: a record is damaged.
    """
    runs = folders.every(results)
    which = unlike(runs)
    return [_filled(run) if run.id in which else run for run in runs]


def _filled(run: Run) -> Run:
    from robustbench_cli.config import TrainConfig, recorded, validated
    from robustbench_cli.run.setup import described

    try:
        config = validated(TrainConfig, described(run.config))
    except (UserError, KeyError):  # what this version does not understand stays as it was written
        return run
    return replace(run, config=plain(recorded(config)))
