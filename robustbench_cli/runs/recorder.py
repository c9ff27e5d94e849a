"""Records while runs are being made: one writer at a time, and an end that is always written."""

import fcntl
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from robustbench_cli.core.atomic_files import FileWriteError
from robustbench_cli.core.errors import UserError, stopped_program
from robustbench_cli.runs import records
from robustbench_cli.runs.records import Run

_LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second process from writing into the same run; the lock dies with the process.

    Raises:
        UserError: another process holds the lock, or the lock file cannot be used.
    """
    descriptor = _open_lock(folder / _LOCK)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"run {folder.name!r} is being written by another process") from None
        yield
    finally:
        os.close(descriptor)


def _open_lock(path: Path) -> int:
    """A descriptor of the lock file; nothing is followed, truncated or written."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        link = "it is a symbolic link" if path.is_symlink() else error.strerror
        raise UserError(f"lock {str(path)!r} cannot be used: {link}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UserError(f"lock {str(path)!r} cannot be used: it is no regular file")
    return descriptor


@dataclass
class Recorder:
    """A run's record while it is being made."""

    run: Run
    folder: Path
    silent: bool = False
    """True if another process writes the record."""
    temporary: list[Path] = field(default_factory=list)
    """Files that only an unfinished run needs: removed once the record says ``ok``."""

    def update(self, **changes: Any) -> None:
        """Change fields and write the record."""
        self.run = replace(self.run, **changes, updated=records.now())
        if not self.silent:
            records.write(self.run, self.folder)


@contextmanager
def recording(
    run: Run,
    folder: Path,
    *,
    silent: bool = False,
    worthless: Callable[[Run, BaseException], bool] = lambda *_: False,
) -> Iterator[Recorder]:
    """A record that says how the run went, even when it fails or is interrupted.

    Args:
        silent: another process writes it.
        worthless: returns True if the folder of a run that ends with this error is removed.

    Raises:
        UserError: another process writes it now, or has since ``run`` was read; or code of the
            user's own stopped the program.
    """
    with nullcontext() if silent else locked(folder):
        known = None if silent or not (folder / "run.json").is_file() else records.read(folder)
        if known and known.updated != run.updated:
            raise UserError(f"run {run.id!r} was changed by another process: try again")
        recorder = Recorder(run, folder, silent)
        try:
            recorder.update(status="started", error=None)
            yield recorder
        except (KeyboardInterrupt, Exception) as error:
            _end(recorder, error, worthless)
            raise
        except GeneratorExit:  # nobody waits for the end of this
            raise
        except BaseException as error:  # sys.exit() in a model's file must not look like success
            stopped = stopped_program(error)
            _end(recorder, stopped, worthless)
            raise stopped from error
        recorder.update(status="ok")
        for path in recorder.temporary:
            path.unlink(missing_ok=True)


def _end(
    recorder: Recorder, error: BaseException, worthless: Callable[[Run, BaseException], bool]
) -> None:
    """Write how a run ended that did not finish; remove a folder that is of no use."""
    stopped = isinstance(error, KeyboardInterrupt)
    what = None if stopped else f"{type(error).__name__}: {error}"
    # A full disk takes no record either: the error that ended the run is the one to tell.
    with suppress(FileWriteError):
        recorder.update(status="interrupted" if stopped else "failed", error=what)
    if not recorder.silent and worthless(recorder.run, error):
        shutil.rmtree(recorder.folder)
