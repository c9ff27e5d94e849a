"""Write the parts of README.md and docs/ that come from records, from the app and from imports.

    python docs/make_pages.py

A part stands between the comments ``begin NAME`` and ``end NAME``; everything else on a page is
written by hand.  tests/docs/test_pages.py fails where a page differs from what this would write.
"""

from collections.abc import Callable
from pathlib import Path

from check_table import checks
from command_reference import exit_codes, reference
from input_defenses_table import patches
from marked_parts import filled, part_names
from package_graph import drawing, packages
from reproduction_tables import REPRODUCTION
from results_tables import TABLES
from retrieval_tables import RETRIEVAL
from sampling_table import SAMPLING
from strength_table import STRENGTH
from suites_table import SUITES
from understanding_tables import UNDERSTANDING
from zoo_table import ZOO_TABLES

ROOT = Path(__file__).parents[1]
PARTS: dict[str, Callable[[], str]] = {
    **TABLES,
    "checks": checks,
    **REPRODUCTION,
    **RETRIEVAL,
    **SAMPLING,
    **STRENGTH,
    **SUITES,
    **UNDERSTANDING,
    **ZOO_TABLES,
    "commands": reference,
    "drawing": drawing,
    "exit-codes": exit_codes,
    "packages": packages,
    "patches": patches,
}


def pages() -> list[Path]:
    """Return README.md and every page below docs."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def rewritten(page: Path) -> str:
    """Return the text of a page with its parts as they are now."""
    text = page.read_text()
    return filled(text, {name: PARTS[name]() for name in part_names(text)})


def main() -> None:
    """Write every page whose parts have changed."""
    for page in pages():
        text = rewritten(page)
        if text != page.read_text():
            page.write_text(text)
            print(f"wrote {page.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
