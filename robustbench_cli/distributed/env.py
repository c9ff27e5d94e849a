"""What ``torchrun`` tells a process about itself.  No torch in here."""

import os
import sys
import time
from contextlib import suppress
from typing import NoReturn


def world() -> int:
    """How many processes share this command."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this process is the one that prints."""
    return os.environ.get("RANK", "0") == "0"


def linger(seconds: float = 10.0) -> None:
    """Let the process that speaks end first: the launcher ends all of them as soon as one does."""
    with suppress(KeyboardInterrupt):  # which is how the launcher does it
        time.sleep(seconds)


def local_rank() -> int | None:
    """Which of this machine's processes it is; None: it was not launched with others."""
    place = os.environ.get("LOCAL_RANK")
    return None if place is None else int(place)


def end_process(code: int) -> NoReturn:
    """End this process with an exit code.

    One of several processes ends without the interpreter's own clean-up: in one of fifty busy runs
    a thread of torch's process group was still there and aborted the process after its work was
    done and on the disk ("terminate called without an active exception", torch 2.14).
    """
    if world() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
