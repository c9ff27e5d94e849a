"""What ``torchrun`` tells a process about itself.  No torch in here."""

import os
import time
from contextlib import suppress


def world() -> int:
    """How many processes share this command."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def speaks() -> bool:
    """Whether this process is the one that prints."""
    return os.environ.get("RANK", "0") == "0"


def linger(seconds: float = 10.0) -> None:
    """Let the process that speaks end first: the launcher ends all of them as soon as one does."""
    with suppress(KeyboardInterrupt):  # which is how the launcher does it
        time.sleep(seconds)


def seat() -> int | None:
    """Which of this machine's processes it is; None: it was not launched with others."""
    place = os.environ.get("LOCAL_RANK")
    return None if place is None else int(place)
