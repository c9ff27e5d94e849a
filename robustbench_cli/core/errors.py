"""Errors of two kinds: a mistake that the user can mend, and a run that failed.

Both are shown as one line.  A message says what was wrong, what was given and what is allowed.
"""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A name, value, file or model that the user can correct: exit code 2."""


class RunError(RuntimeError):
    """A run that started and could not go on: exit code 1."""


FEW = 20
"""Names that fit into a message."""


def hint(name: str, known: Iterable[str], see: str = "") -> str:
    """``; did you mean 'trades'?`` or, with nothing near, the whole choice.

    Args:
        see: the command that lists them, where they may be too many for a message.
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    more = len(known) - FEW
    if more > 0:
        return f"; see {see}" if see else f"; known: {', '.join(known[:FEW])} and {more} more"
    return f"; known: {', '.join(known) or 'none'}"


def install_command(extra: str) -> str:
    """Return what to type to install the packages of an extra of this program, and where.

    Without ``-e`` a copy of the checkout would take the place of the install that reads it, as
    ``make demo`` makes it: changes of the code would have no effect any more.
    """
    return f"pip install -e '.[{extra}]' where advbench is cloned"


def stopped_program(error: BaseException) -> UserError:
    """The error to raise where ``sys.exit()``, or the like, came out of a user's own code."""
    return UserError(f"the model's own code ended the program ({in_one_line(error)})")


def in_one_line(error: BaseException) -> str:
    """Return the kind of an error and the first line of its text, as in ``KeyError: 'x'``.

    It is for errors of a user's own code and of libraries, whose further lines are explanations.
    """
    lines = (" ".join(line.split()) for line in str(error).splitlines())
    return ": ".join([type(error).__name__, *[line for line in lines if line][:1]])
