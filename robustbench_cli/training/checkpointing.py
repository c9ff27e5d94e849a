"""What a training run leaves on disk after each epoch, and how a later process finds it again."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from robustbench_cli.config.schema import TrainConfig
from robustbench_cli.core.errors import UserError
from robustbench_cli.runs import records
from robustbench_cli.runs.records import Checkpoint, Recorder
from robustbench_cli.training import checkpoint
from robustbench_cli.training.trainer import HistoryRow, Trainer

MODEL = "model.safetensors"
"""The weights that the selection rule keeps."""
LAST = "last.safetensors"
"""The weights after the last epoch, where the rule keeps others."""
AIDS = "aids.safetensors"
"""What the defense trained beside the model, as it was when those weights were kept."""
STATE = "state.safetensors"
"""Everything needed to go on; removed when the run is finished."""


@dataclass(kw_only=True)
class Keeper:
    """The epochs of a run that are done, in memory and on disk.

    Of several processes the first one writes; the others go along in memory.
    """

    recorder: Recorder
    trainer: Trainer
    config: TrainConfig
    history: list[HistoryRow] = field(default_factory=list)
    kept: int = 0
    """The epoch whose weights the rule keeps so far; 0: none yet."""

    def restore(self) -> None:
        """Take up what an earlier process finished, if there was one.

        Raises:
            UserError: its state is damaged or of another run.
        """
        path, trainer = self.recorder.folder / STATE, self.trainer
        try:
            found = trainer.shard.broadcast_from_main(
                lambda: checkpoint.load_tensors(path) if path.is_file() else None
            )
            if not found:
                return
            tensors, note = found
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
        """Write what an epoch leaves."""
        self.history.append(row)
        chosen = self._chosen()
        if chosen:
            self.kept = len(self.history)
        if not self.recorder.silent:
            self._write(chosen)

    def _write(self, chosen: bool) -> None:
        """Chosen weights first, then the state that refers to them."""
        trainer, folder = self.trainer, self.recorder.folder
        changes: dict[str, Any] = {}
        if chosen:
            self._save(MODEL)
            changes = {"checkpoint": self._described(MODEL, self.kept, self.config.train.select)}
            auxiliaries = trainer.auxiliaries.state_dict()
            if auxiliaries:
                checkpoint.save_tensors(folder / AIDS, auxiliaries, {"epoch": self.kept})
        state = checkpoint.training_state(trainer.model, trainer.optimizer, trainer.auxiliaries)
        checkpoint.save_tensors(folder / STATE, state, {"history": self.history, "kept": self.kept})
        self._tell(self.history, **changes)

    def refuse(self, row: HistoryRow) -> None:
        """Keep nothing of an epoch but its line in the record; go back to where it began."""
        self._tell([*self.history, row])
        self.restore()

    def _tell(self, history: list[HistoryRow], **changes: Any) -> None:
        spent = sum(float(row["seconds"] or 0) for row in history)
        self.recorder.update(history=history, seconds=spent, **changes)

    def finish(self) -> None:
        """Say in the record what is kept; the state has served."""
        if self.recorder.silent:
            return
        rule, epochs = self.config.train.select, len(self.history)
        changes: dict[str, Any] = {}
        if rule != "last":
            self._save(LAST)
            changes = {"last": self._described(LAST, epochs, "last")}
        # Described again: a process that was killed may have saved weights and not said so.
        self.recorder.update(checkpoint=self._described(MODEL, self.kept, rule), **changes)
        (self.recorder.folder / STATE).unlink(missing_ok=True)

    def _save(self, name: str) -> None:
        with self.trainer.swap_in_eval_weights():
            state = self.trainer.model.state_dict()
            checkpoint.save_tensors(
                self.recorder.folder / name, state, {"epoch": len(self.history)}
            )

    def _described(self, name: str, epoch: int, rule: str) -> Checkpoint:
        sha256 = records.sha256(self.recorder.folder / name)
        return Checkpoint(file=name, sha256=sha256, epoch=epoch, rule=rule)

    def _chosen(self) -> bool:
        """Whether the last epoch's weights are the ones to keep so far."""
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


def _rows(note: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    rows: list[Mapping[str, Any]] = note["history"]
    return rows
