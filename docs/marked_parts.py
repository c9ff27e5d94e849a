"""Parts of a Markdown page that a script writes, between comments that a reader does not see."""

import re
from collections.abc import Mapping

_PART = re.compile(r"(<!-- begin ([\w-]+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)


def filled(page: str, parts: Mapping[str, str]) -> str:
    """Return the page with every part between ``begin NAME`` and ``end NAME`` written anew.

    Raises:
        KeyError: the page has a part that ``parts`` lacks.
    """
    return _PART.sub(lambda m: f"{m[1]}{parts[m[2]].strip()}\n{m[3]}", page)


def part_names(page: str) -> list[str]:
    """Return the names of the parts of a page, in order."""
    return [match[2] for match in _PART.finditer(page)]


def table(heads: list[str], rows: list[list[str]], left: int = 1) -> str:
    """Return a Markdown table; all columns but the first ``left`` are aligned to the right."""
    rule = [":--"] * left + ["--:"] * (len(heads) - left)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (heads, rule, *rows))
