"""Records of older versions with the settings that have come since, at their defaults."""

from collections.abc import Sequence
from dataclasses import replace

from robustbench_cli.config import TrainConfig, recorded, validated
from robustbench_cli.errors import UserError
from robustbench_cli.records import Run, plain
from robustbench_cli.run.setup import described


def filled(runs: Sequence[Run], which: set[str]) -> list[Run]:
    """``runs``, those named in ``which`` with every setting that this version knows.

    What this version no longer understands stays as it was written.
    """
    return [_filled(run) if run.id in which else run for run in runs]


def _filled(run: Run) -> Run:
    try:
        config = validated(TrainConfig, described(run.config))
    except UserError:
        return run
    return replace(run, config=plain(recorded(config)))
