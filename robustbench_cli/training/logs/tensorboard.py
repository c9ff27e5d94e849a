"""TensorBoard (https://www.tensorflow.org/tensorboard), through torch's writer."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from robustbench_cli.core.errors import UserError, install_command
from robustbench_cli.runs.records import Run
from robustbench_cli.training.logs import LOGS, LogEpoch, TrainingLog
from robustbench_cli.training.trainer import HistoryRow


@LOGS.register("tensorboard")
@dataclass(frozen=True, kw_only=True)
class TensorBoardLog(TrainingLog):
    """Write event files into the run's folder ``tensorboard``: tensorboard --logdir results."""

    def check(self) -> None:
        try:
            import torch.utils.tensorboard  # noqa: F401
        except ImportError:
            raise UserError(
                f"--log tensorboard needs tensorboard: {install_command('tensorboard')}"
            ) from None

    @contextmanager
    def opened(self, run: Run, folder: Path) -> Iterator[LogEpoch]:
        from torch.utils.tensorboard import SummaryWriter

        # An interrupted process may have logged an epoch that was not kept: it is trained again.
        writer = SummaryWriter(str(folder / "tensorboard"), purge_step=len(run.history) + 1)

        def write(row: HistoryRow) -> None:
            for name, value in row.items():
                if value is not None and name != "epoch":
                    writer.add_scalar(name, value, row["epoch"])
            writer.flush()

        try:
            if not run.history:
                writer.add_text("config", f"```json\n{json.dumps(run.config, indent=2)}\n```")
            yield write
        finally:
            writer.close()
