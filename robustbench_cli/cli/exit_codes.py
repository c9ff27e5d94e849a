"""The exit codes of ``advbench``, each with its meaning: what a script or a CI job can rely on."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What the number says with which a command ends."""

    DONE = 0, "done; every gate that was asked for is passed"
    FAILED = 1, "a run failed, or a job of a study; what was finished is kept"
    MISTAKE = 2, "a mistake in the command, a file or a model, told in one line; nothing was run"
    UNSOUND = 3, "`--strict`: a number is not sound, or an audited claim is not reproduced"
    BELOW = 4, "`--fail-under`: a number is below its gate, or cannot vouch that it is not"
    INTERRUPTED = 130, "Ctrl-C or SIGTERM; the last line says what is kept and how to go on"

    meaning: str

    def __new__(cls, code: int, meaning: str) -> "ExitCode":
        """Make a member that is a number and has a meaning."""
        made = int.__new__(cls, code)
        made._value_ = code
        made.meaning = meaning
        return made
