"""The table of the checks on trust.md, from what each says of itself."""

from marked_parts import table

from robustbench_cli.audit import CHECKS, BatteryCheck, ModelCheck, VerdictCheck
from robustbench_cli.config.catalogue import scan

CHECK_KINDS = (ModelCheck, VerdictCheck, BatteryCheck)
WHEN = {ModelCheck: "before, after", VerdictCheck: "after", BatteryCheck: "audit"}
"""When a check is made, by its class."""
FOLLOWS = {"info": "a note", "warning": "upper bound", "error": "withheld"}
"""What follows from a finding, by its severity."""


def checks() -> str:
    """Return the table of all checks: those of the model, those of the verdicts, the battery."""
    lines = []
    for item in scan("checks"):
        cls = CHECKS.entry(item.name).cls
        when = next(place for place, base in enumerate(CHECK_KINDS) if issubclass(cls, base))
        passes = f"{cls.passes:g}" if cls.passes else "none"
        numbers = "all" if cls.clean else "robust"
        facts = [FOLLOWS[cls.severity], numbers, ", ".join(cls.needs), passes]
        lines.append((when, [f"`{item.name}`", item.summary, WHEN[CHECK_KINDS[when]], *facts]))
    heads = ["check", "what must hold, or else", "when", "the number is", "numbers", "it needs"]
    return table([*heads, "passes"], [line for _, line in sorted(lines)], left=6)
