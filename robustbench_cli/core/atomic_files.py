"""Files that are complete or absent: written under a temporary name, then renamed."""

import os
from collections.abc import Callable
from pathlib import Path


def write_bytes_atomically(path: Path, content: bytes) -> Path:
    """Write to a temporary name, flush to the disk, rename."""
    return write_atomically(path, lambda part: part.write_bytes(content))


def write_atomically(path: Path, save: Callable[[Path], object]) -> Path:
    """Let ``save`` write a temporary file beside ``path``, flush it to the disk, rename it."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save(part)
        part.chmod(0o666 & ~_umask())  # some writers make private files
        with part.open("rb") as handle:
            os.fsync(handle.fileno())
        return part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
