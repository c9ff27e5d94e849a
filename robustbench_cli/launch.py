"""What ``torchrun`` tells a process about itself.  No torch in here."""

import os


def world() -> int:
    """How many processes share this command."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def speaks() -> bool:
    """Whether this process is the one that prints."""
    return os.environ.get("RANK", "0") == "0"


def seat() -> int | None:
    """Which of this machine's processes it is; None: it was not launched with others."""
    place = os.environ.get("LOCAL_RANK")
    return None if place is None else int(place)
