"""The cache: files that save work and can be made again, so that anyone may delete them.

It lies at ``$ADVBENCH_CACHE``, else in ``advbench`` under ``$XDG_CACHE_HOME`` or ``~/.cache`` (XDG
base directory specification, 2021, https://specifications.freedesktop.org/basedir-spec).
No torch in here: the command that shows the cache must start fast.
"""

import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from robustbench_cli.core.atomic_files import FileWriteError, write_bytes_atomically
from robustbench_cli.core.errors import UserError

ROOMS = {
    "facts": "sizes and fingerprints of data sets",
    "decoded": "decoded images",
    "encoded": "image files taken out of tables",
}
"""The folders of the cache, and what each holds."""


def cache_folder() -> Path:
    """Return the folder of the cache, whether or not it is there."""
    if own := os.environ.get("ADVBENCH_CACHE"):
        return Path(own).expanduser()
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".cache") / "advbench"


def room(name: str) -> Path:
    """Return one of the folders of the cache; it is made if that is possible."""
    folder = cache_folder() / name
    with contextlib.suppress(OSError):  # whoever writes there says what is wrong
        folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass(frozen=True, kw_only=True)
class CacheFile:
    """A file of the cache."""

    path: Path
    room: str
    size: int
    """In bytes."""
    changed: datetime


def cache_files() -> list[CacheFile]:
    """Return the files of the cache, the largest first; files of other kinds are passed over."""
    found = []
    for name in ROOMS:
        folder = cache_folder() / name
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if path.is_file() and not path.is_symlink():
                about = path.stat()
                changed = datetime.fromtimestamp(about.st_mtime, UTC)
                found.append(CacheFile(path=path, room=name, size=about.st_size, changed=changed))
    return sorted(found, key=lambda each: -each.size)


def clear_cache() -> int:
    """Delete the files of the cache; return the number of bytes that are free again.

    Raises:
        UserError: a file cannot be deleted.
    """
    freed = 0
    for each in cache_files():
        try:
            each.path.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"{each.path} cannot be deleted: {error.strerror}") from None
        freed += each.size
    return freed


def file_stamp(file: str | os.PathLike[str]) -> list[int]:
    """Return numbers that are others when the content of a file is another one.

    They are its size, the time of its last change, and that of the last change of what the system
    knows of it: copies and archives set the former, nobody can set the latter.

    Raises:
        OSError: there is no such file.
    """
    about = os.stat(file)  # noqa: PTH116 - a Path for each of a million files takes long
    return [about.st_size, about.st_mtime_ns, about.st_ctime_ns]


def remembered(
    key: str,
    compute: Callable[[], dict[str, Any]],
    holds: Callable[[dict[str, Any]], bool] = lambda _: True,
) -> dict[str, Any]:
    """Return what ``compute`` returned when it was first called for this key.

    A file that is damaged is written anew; a cache that cannot be written is no error.

    Args:
        key: a hash of everything that the result depends on.
        compute: returns values that JSON can hold.
        holds: returns whether what was kept is still true.
    """
    path = room("facts") / f"{key}.json"
    try:
        found = json.loads(path.read_text())
        if isinstance(found, dict) and found.get("key") == key:
            kept: dict[str, Any] = found["values"]
            if holds(kept):
                return kept
    except (OSError, ValueError, KeyError, TypeError):
        pass
    values = compute()
    with contextlib.suppress(FileWriteError):
        write_bytes_atomically(path, json.dumps({"key": key, "values": values}).encode())
    return values
