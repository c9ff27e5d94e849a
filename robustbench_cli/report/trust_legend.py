"""What the marks of numbers mean, and the findings behind them, in lines below a table."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from robustbench_cli.core.safe_text import one_line
from robustbench_cli.report.number_trust import (
    BOUND_SIGN,
    DERIVED_SIGN,
    SAMPLED_SIGN,
    SAYS_NOTHING,
    UNCHECKED_SIGN,
    WITHHELD,
    NumberTrust,
)
from robustbench_cli.runs.trust import Finding


@dataclass(frozen=True, kw_only=True)
class JudgedNumber:
    """A number of a table, by its row and its column, and how far it can be trusted."""

    row: str
    column: str
    trust: NumberTrust


def trust_legend(numbers: Sequence[JudgedNumber], *, unseen: int = 0) -> list[str]:
    """Return the lines below a table: each mark in use, then the findings of each marked number.

    Args:
        numbers: those of the table, in its order.
        unseen: evaluations in it that are from before there were checks.
    """
    return [*mark_meanings(each.trust for each in numbers), *_unseen(unseen), *_reasons(numbers)]


def mark_meanings(trusts: Iterable[NumberTrust], *, sign: str = BOUND_SIGN) -> list[str]:
    """Return a line for each mark that numbers with this trust have."""
    known = list(trusts)
    sampled = [each for each in known if each.sampled]
    bounds = [each for each in known if each.trust == "upper bound" and each.confidence is None]
    lower = any(each.found is not None for each in bounds)
    more = "; (N found) = left after what another attack broke as well" if lower else ""
    sure = min((each.confidence or 0.0 for each in sampled), default=0.0)
    lines = {
        f"{SAMPLED_SIGN} = between the two with {sure:.0%} confidence: the last members of the "
        "attack saw a part of what stood (--within)": bool(sampled),
        f"{SAMPLED_SIGN} = between the two: the budget ran out (--budget); what was not finished "
        "falls at the lower end and stands at the upper one": any(
            each.unfinished for each in known
        ),
        f"{sign} = an upper bound: something hides the truth, which is lower{more}": bool(bounds),
        f"{WITHHELD} = the number means nothing and is not shown": any(
            each.withheld and not each.silent for each in known
        ),
        f"{SAYS_NOTHING} = the certificate proves nothing of any image at any radius that is "
        "reported; of the model that tells nothing, which 0 % would": any(
            each.silent for each in known
        ),
        f"{UNCHECKED_SIGN} = not checked (--no-checks), or not in full under such a threat": any(
            each.waived for each in known if not each.withheld and each.trust != "upper bound"
        ),
    }
    return [line for line, applies in lines.items() if applies]


DERIVED_MEANING = f"{DERIVED_SIGN} = computed from numbers that are upper bounds"


def finding_text(finding: Finding) -> str:
    """Return a finding in one line: the check and its sentence."""
    return one_line(f"{finding.check}: {finding.message}")


def _unseen(count: int) -> list[str]:
    if not count:
        return []
    return [f"{count} evaluation(s) are from before advbench checked its numbers"]


def _reasons(numbers: Sequence[JudgedNumber]) -> list[str]:
    """Return the findings of marked numbers, joined where columns or rows have the same ones."""
    columns: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for each in numbers:
        if texts := _texts(each.trust):
            columns.setdefault((each.row, texts), []).append(each.column)
    rows: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for (row, texts), named in columns.items():
        rows.setdefault((tuple(named), texts), []).append(row)
    return [
        one_line(f"{', '.join(whose)} ({', '.join(named)}): {'; '.join(texts)}")
        for (named, texts), whose in rows.items()
    ]


def _texts(trust: NumberTrust) -> tuple[str, ...]:
    """Return the findings of a marked number; of several by one check the first, and how many."""
    if trust.silent or trust.trust not in ("upper bound", "withheld"):
        return ()
    # A withheld number has a reason of its own; what hides a number that means nothing is idle.
    telling = [f for f in trust.findings if f.severity == "error" or not trust.withheld]
    found: dict[str, list[str]] = {}
    for finding in telling:
        texts = found.setdefault(finding.check, [])
        if (text := finding_text(finding)) not in texts:
            texts.append(text)
    return tuple(
        texts[0] + (f" (and {len(texts) - 1} more)" if len(texts) > 1 else "")
        for texts in found.values()
    ) or ("no finding says why",)
