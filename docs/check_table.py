"""The table of the checks on trust.md, from what each says of itself."""

from marked_parts import table

from robustbench_cli.audit import CHECKS, ModelCheck
from robustbench_cli.config.catalogue import scan

FOLLOWS = {"info": "a note", "warning": "upper bound", "error": "withheld"}
"""What follows from a finding, by its severity."""


def checks() -> str:
    """Return the table of all checks: those of the model first, then those of the verdicts."""
    lines = []
    for item in scan("checks"):
        cls = CHECKS.entry(item.name).cls
        before = issubclass(cls, ModelCheck)
        passes = f"{cls.passes:g}" if cls.passes else "none"
        numbers = "all" if cls.clean else "robust"
        facts = [FOLLOWS[cls.severity], numbers, ", ".join(cls.needs), passes]
        lines.append((not before, [f"`{item.name}`", item.summary, *facts]))
    heads = ["check", "what must hold, or else", "the number is", "numbers", "it needs", "passes"]
    return table(heads, [line for _, line in sorted(lines)], left=5)
