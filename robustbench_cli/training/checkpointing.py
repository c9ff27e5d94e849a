"""The files of a training run after each epoch, and how a later process resumes from them."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from robustbench_cli.config.schema import TrainConfig
from robustbench_cli.core.errors import UserError
from robustbench_cli.distributed.group import Shard
from robustbench_cli.runs import records
from robustbench_cli.runs.outcomes import Checkpoint
from robustbench_cli.runs.recorder import Recorder
from robustbench_cli.training import checkpoint
from robustbench_cli.training.trainer import HistoryRow

MODEL = "model.safetensors"
"""The weights that the selection rule keeps."""
LAST = "last.safetensors"
"""The weights after the last epoch, where the rule keeps others."""
AIDS = "aids.safetensors"
"""The defense's auxiliary modules, as they were when those weights were kept."""
STATE = "state.safetensors"
"""Everything needed to resume; removed when the run is finished."""


class InTraining(Protocol):
    """What files are kept of: a trainer, for whatever task."""

    @property
    def model(self) -> nn.Module:
        """The net."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Its optimizer, whose state is saved."""

    @property
    def auxiliaries(self) -> nn.ModuleDict:
        """What is saved beside the net."""

    @property
    def shard(self) -> Shard:
        """This process among those that share the training."""

    def swap_in_eval_weights(self) -> AbstractContextManager[None]:
        """Give the net the weights that are saved, until the context is left."""


@dataclass(kw_only=True)
class Keeper:
    """The finished epochs of a run, in memory and on disk.

    Of several processes only the main one writes files.
    """

    recorder: Recorder
    trainer: InTraining
    config: TrainConfig
    history: list[HistoryRow] = field(default_factory=list)
    kept: int = 0
    """The epoch, counted from 1, whose weights the selection rule keeps so far; 0: none yet."""

    def restore(self) -> None:
        """Continue from the last epoch that an earlier process finished, if there is one.

        Raises:
            UserError: the saved state is damaged or of another run.
        """
        path, trainer = self.recorder.folder / STATE, self.trainer
        try:
            saved = trainer.shard.broadcast_from_main(
                lambda: checkpoint.load_tensors(path) if path.is_file() else None
            )
            if not saved:
                return
            tensors, note = saved
            checkpoint.restore_training(
                tensors, trainer.model, trainer.optimizer, trainer.auxiliaries
            )
        except (UserError, RuntimeError, ValueError, KeyError) as error:
            first = str(error).splitlines()[0]
            raise UserError(
                f"training state {str(path)!r} cannot be used ({first}); delete it to train "
                "this run from the beginning"
            ) from None
        self.history, self.kept = [dict(row) for row in _rows(note)], int(note["kept"])

    def add(self, row: HistoryRow) -> None:
        """Write the files of a finished epoch, and its line of the history."""
        self.history.append(row)
        selected = self._is_selected()
        if selected:
            self.kept = len(self.history)
        if not self.recorder.silent:
            self._write(selected)

    def _is_selected(self) -> bool:
        """True if the selection rule prefers the last epoch's weights to the ones kept so far."""
        history, options = self.history, self.config.train

        def best() -> bool:
            column = "test_robust" if options.select == "oracle" else "val_robust"
            now, before = history[-1][column], history[self.kept - 1][column]
            return self.kept == 0 or float(now or 0) > float(before or 0)

        rules = {
            "last": lambda: True,
            "epoch": lambda: len(history) == options.select_epoch,
            "best": best,
            "oracle": best,
        }
        return rules[options.select]()

    def _write(self, selected: bool) -> None:
        """Write selected weights first, then the state that refers to them."""
        trainer, folder = self.trainer, self.recorder.folder
        changes: dict[str, Any] = {}
        if selected:
            self._save(MODEL)
            rule = self.config.train.select
            changes = {"checkpoint": self._checkpoint(MODEL, self.kept, rule)}
            auxiliaries = trainer.auxiliaries.state_dict()
            if auxiliaries:
                checkpoint.save_tensors(folder / AIDS, auxiliaries, {"epoch": self.kept})
        state = checkpoint.training_state(trainer.model, trainer.optimizer, trainer.auxiliaries)
        checkpoint.save_tensors(folder / STATE, state, {"history": self.history, "kept": self.kept})
        self._record(self.history, **changes)

    def refuse(self, row: HistoryRow) -> None:
        """Return to the state before an epoch; only its line of the history is kept."""
        self._record([*self.history, row])
        self.restore()

    def _record(self, history: list[HistoryRow], **changes: Any) -> None:
        spent = sum(float(row["seconds"] or 0) for row in history)
        self.recorder.update(history=history, seconds=spent, **changes)

    def finish(self) -> None:
        """Write the final checkpoints into the record and give up the state to resume from."""
        if self.recorder.silent:
            return
        rule, epochs = self.config.train.select, len(self.history)
        changes: dict[str, Any] = {}
        if rule != "last":
            self._save(LAST)
            changes = {"last": self._checkpoint(LAST, epochs, "last")}
        # Once more, because a process that was killed may have saved weights and not recorded them.
        self.recorder.update(checkpoint=self._checkpoint(MODEL, self.kept, rule), **changes)
        # Removed when the record says that the run is finished: until then it may be resumed.
        self.recorder.temporary.append(self.recorder.folder / STATE)

    def _save(self, name: str) -> None:
        with self.trainer.swap_in_eval_weights():
            state = self.trainer.model.state_dict()
            checkpoint.save_tensors(
                self.recorder.folder / name, state, {"epoch": len(self.history)}
            )

    def _checkpoint(self, name: str, epoch: int, rule: str) -> Checkpoint:
        sha256 = records.sha256(self.recorder.folder / name)
        return Checkpoint(file=name, sha256=sha256, epoch=epoch, rule=rule)


def _rows(note: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    rows: list[Mapping[str, Any]] = note["history"]
    return rows
