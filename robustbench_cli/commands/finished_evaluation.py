"""What others are told of an evaluation: images as they are found, and the verdicts at its end."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from robustbench_cli.data import Split
from robustbench_cli.evaluation.stages import AttackVerdicts, Progress
from robustbench_cli.runs.recorder import Recorder

ImageCallback = Callable[[str, Progress], None]
"""Called with an attack's label and the images that it has just found."""


@dataclass(frozen=True, kw_only=True)
class FinishedEvaluation:
    """The verdicts of an evaluation while they are still in memory."""

    folder: Path
    data: Split
    columns: dict[str, AttackVerdicts]
    recorder: Recorder
