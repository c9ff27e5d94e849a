"""A display that logs every epoch as well (``train --log``)."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from robustbench_cli.commands.display import Display
from robustbench_cli.distributed import env
from robustbench_cli.runs.records import Run
from robustbench_cli.training.logs import LogEpoch, TrainingLog
from robustbench_cli.training.trainer import HistoryRow, Watch


@contextmanager
def logged_display(
    shown: AbstractContextManager[Display], logs: Sequence[TrainingLog]
) -> Iterator[Display]:
    """Give a display that shows what the given one does and logs epochs; the logs end with it.

    Of several processes only the main one logs.
    """
    with shown as display, ExitStack() as stack:
        some = logs if env.is_main_process() else ()
        yield LoggedDisplay(display, some, stack) if some else display


class LoggedDisplay(Display):
    """Shows what another display does, and logs epochs."""

    def __init__(self, display: Display, logs: Sequence[TrainingLog], stack: ExitStack) -> None:
        self._display, self._logs, self._stack = display, logs, stack
        self._writers: list[LogEpoch] = []

    def started(self, run: Run, folder: Path) -> None:
        self._display.started(run, folder)
        for each in self._logs:
            self._writers.append(self._stack.enter_context(each.opened(run, folder)))

    def note(self, text: str) -> None:
        self._display.note(text)

    def training(self, epochs: int, done: int) -> None:
        self._display.training(epochs, done)

    def batch(self, watch: Watch) -> None:
        self._display.batch(watch)

    def epoch(self, row: HistoryRow) -> None:
        self._display.epoch(row)
        for write in self._writers:
            write(row)

    def fitting(self, member: str, done: int, of: int) -> None:
        self._display.fitting(member, done, of)

    def working(self, what: str, done: int, of: int) -> None:
        self._display.working(what, done, of)

    def judging(self, label: str, n: int, what: str = "robust accuracy") -> None:
        self._display.judging(label, n, what)

    def judged(self, done: int, accuracy: float) -> None:
        self._display.judged(done, accuracy)
