"""The environment variables that ``torchrun`` sets for a process; imports no torch."""

import os
import sys
import time
from contextlib import suppress
from typing import NoReturn


def world() -> int:
    """Return the number of processes that share this command (WORLD_SIZE)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Return True in the process with rank 0, which prints and writes the record."""
    return os.environ.get("RANK", "0") == "0"


def linger(seconds: float = 10.0) -> None:
    """Wait, so that the main process can finish printing an error before this process ends.

    The launcher ends all processes as soon as one of them fails.
    """
    with suppress(KeyboardInterrupt):  # the signal with which the launcher ends a process
        time.sleep(seconds)


def local_rank() -> int | None:
    """Return this process's rank on its machine (LOCAL_RANK); None without a launcher."""
    rank = os.environ.get("LOCAL_RANK")
    return None if rank is None else int(rank)


def end_process(code: int) -> NoReturn:
    """End this process with an exit code.

    One of several processes ends without the interpreter's clean-up, because threads of torch's
    process group may still be there (see ``group._never_deallocate``) and would abort it.
    """
    if world() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
