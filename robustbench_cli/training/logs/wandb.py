"""Weights & Biases (https://docs.wandb.ai)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from robustbench_cli.core.errors import UserError, install_command
from robustbench_cli.runs.records import Run
from robustbench_cli.training.logs import LOGS, LogEpoch, TrainingLog
from robustbench_cli.training.trainer import HistoryRow


@LOGS.register("wandb")
@dataclass(frozen=True, kw_only=True)
class WandbLog(TrainingLog):
    """Log to Weights & Biases; offline, into the folder ``wandb`` of the run, to sync later."""

    project: str = "advbench"
    """The project; the run there has the id of the run here."""
    mode: Literal["", "online", "offline"] = ""
    """Empty: as the environment variable WANDB_MODE says, else online."""

    def check(self) -> None:
        try:
            import wandb  # noqa: F401
        except ImportError:
            raise UserError(f"--log wandb needs wandb: {install_command('wandb')}") from None

    @contextmanager
    def opened(self, run: Run, folder: Path) -> Iterator[LogEpoch]:
        import wandb

        logged = wandb.init(
            project=self.project,
            id=run.id,
            name=run.id,
            config=run.config,
            dir=str(folder),
            mode=self.mode or None,
            resume="allow",
        )

        def write(row: HistoryRow) -> None:
            known = {name: value for name, value in row.items() if value is not None}
            logged.log(known, step=int(known["epoch"]))

        try:
            yield write
        except BaseException:
            logged.finish(exit_code=1)
            raise
        logged.finish()
