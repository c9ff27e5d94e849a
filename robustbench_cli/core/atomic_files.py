"""Files that are complete or absent: written under a temporary name, then renamed."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

from robustbench_cli.core.errors import RunError


class FileWriteError(RunError, OSError):
    """A file that could not be written, with the system's reason in ``strerror``."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{str(path)!r} cannot be written: {reason}")
        self.strerror = reason

    def __str__(self) -> str:
        return str(self.args[0])


def write_bytes_atomically(path: Path, content: bytes) -> Path:
    """Write to a temporary name, flush to the disk, rename; see ``write_atomically``."""
    return write_atomically(path, lambda part: part.write_bytes(content))


def write_atomically(path: Path, save: Callable[[Path], object]) -> Path:
    """Let ``save`` write a temporary file beside ``path``, flush it to the disk, rename it.

    Raises:
        FileWriteError: the disk is full, or the folder is not there or not writable; ``path`` is
            what it was before.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.unlink(missing_ok=True)  # a link that somebody laid there must not be followed
        save(part)
        part.chmod(0o666 & ~_umask())  # some writers make private files
        with part.open("rb") as handle:
            os.fsync(handle.fileno())
        return part.replace(path)
    except Exception as error:
        if reason := _reason(error):
            raise FileWriteError(path, reason) from error
        raise
    finally:
        _remove(part)


def _reason(error: Exception) -> str:
    """The system's words for why a file could not be written; empty for any other error."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # The writer of safetensors files reports the system's errors in an error of its own.
    full = os.strerror(errno.ENOSPC)
    return full if full in str(error) or "StorageFull" in str(error) else ""


def _remove(part: Path) -> None:
    try:
        part.unlink(missing_ok=True)
    except OSError:  # the error that made it impossible to write is the one to tell
        return


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
