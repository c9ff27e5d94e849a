"""Tables as one page of HTML, which needs no other file: they sort and tell how they were made."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from robustbench_cli.report.html_template import filled
from robustbench_cli.report.number_trust import SAYS_NOTHING, WITHHELD

if TYPE_CHECKING:
    from robustbench_cli.cli.formats import Grid, Page, TableEntry
    from robustbench_cli.report.gallery import FallenImage, Gallery
    from robustbench_cli.report.how_made import HowMade


BROAD = 450
"""Pictures that are wider, in points, are scrolled on a narrow screen and not scaled to it."""


@dataclass(frozen=True, kw_only=True)
class PageFigure:
    """A figure of a page."""

    title: str
    svg: str
    """The ``<svg>`` element; empty: it could not be drawn, and the notes say why."""
    notes: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class PageExtras:
    """What a page of HTML has beside its tables."""

    title: str
    made: Mapping[tuple[int, int], "HowMade"] = field(default_factory=dict)
    """For the row and the column of the first table: how the number was made."""
    figures: Sequence[PageFigure] = ()
    galleries: Sequence["Gallery"] = ()
    gallery_notes: Sequence[str] = ()
    published: Sequence["Page"] = ()
    published_notes: Sequence[str] = ()


@dataclass(frozen=True)
class _Card:
    """An image of a gallery, with the run that it is from."""

    group: "Gallery"
    image: "FallenImage"


def html_page(page: "Page") -> str:
    """Return tables, notes and, where the page has them, pictures as one file of HTML."""
    from markupsafe import Markup

    extras = page.extras() if page.extras else None
    made = extras.made if extras else {}
    figures = extras.figures if extras else ()
    return filled(
        "page.html",
        kind="Study" if extras else "Report",
        title=extras.title if extras else (page.head[0] if page.head else "advbench report"),
        head=page.head if extras else page.head[1:],
        tables=[_table(grid, made if place == 0 else {}) for place, grid in enumerate(page.grids)],
        legend=page.legend,
        remarks=page.notes,
        listing=page.listing,
        made={_target(*place): each for place, each in made.items()},
        # What matplotlib wrote: it escapes the texts in it, and its comments are taken out.
        figures=[
            {
                "title": each.title,
                "svg": Markup(each.svg),
                "broad": _points_wide(each.svg) > BROAD,
                "notes": each.notes,
            }
            for each in figures
        ],
        gallery=_gallery(extras) if extras else None,
        published=_published(extras) if extras else None,
    )


def _points_wide(svg: str) -> float:
    found = re.search(r'<svg[^>]* width="([\d.]+)pt"', svg)
    return float(found[1]) if found else 0.0


def _target(row: int, column: int) -> str:
    return f"made-{row}-{column}"


def _table(grid: "Grid", made: Mapping[tuple[int, int], "HowMade"]) -> dict[str, Any]:
    """Return a table as the template takes it; what all rows share is said once, above it."""
    kept = [at for at, name in enumerate(grid.columns) if name not in grid.shared]
    shared = ", ".join(f"{name} {fact}" for name, fact in grid.shared.items())
    return {
        "title": grid.title,
        "shared": shared,
        "columns": [
            {"name": grid.columns[at], "right": grid.columns[at] not in grid.left} for at in kept
        ],
        "rows": [
            [
                _entry(
                    entries[at],
                    right=grid.columns[at] not in grid.left,
                    prose=grid.columns[at] in grid.prose,
                    target=_target(row, at) if (row, at) in made else "",
                )
                for at in kept
            ]
            for row, entries in enumerate(grid.rows)
        ],
    }


def _entry(entry: "TableEntry", *, right: bool, prose: bool, target: str) -> dict[str, Any]:
    looks = {"right": right, "prose": prose}
    kinds = {
        "bound": "≤" in entry.text or "≥" in entry.text,
        "withheld": entry.text in (WITHHELD, SAYS_NOTHING),
    }
    return {
        "text": entry.text,
        "best": entry.best,
        "key": _number_in(entry.text) if right else entry.text,
        "look": " ".join(name for name, holds in looks.items() if holds),
        "kind": " ".join(name for name, holds in kinds.items() if holds),
        "target": target,
    }


def _number_in(text: str) -> str:
    """Return the first number of a text, by which a column is sorted; empty where there is none."""
    found = re.search(r"[-+]?\d+(?:\.\d+)?|∞", text)
    return found[0].lstrip("+").replace("∞", "Infinity") if found else ""


def _gallery(extras: PageExtras) -> dict[str, Any]:
    """Return the images of all runs as the template takes them, the worst first."""
    cards = [_Card(group, image) for group in extras.galleries for image in group.images]
    cards.sort(key=lambda card: (-(card.image.adversarial.confidence or 0), card.image.norm))
    counts = [
        f"{group.run}: {group.fell} of {group.n} images fell"
        + (f", {len(group.images)} of them are here" if len(group.images) < group.fell else "")
        for group in extras.galleries
    ]
    return {
        "cards": cards,
        "classes": sorted({card.image.label for card in cards}, key=_natural),
        "runs": list(dict.fromkeys(card.group.run for card in cards)),
        "notes": [*counts, *extras.gallery_notes],
    }


def _natural(text: str) -> list[tuple[bool, int, str]]:
    """Return a key by which 2 comes before 10."""
    parts = re.findall(r"\d+|\D+", text)
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]


def _published(extras: PageExtras) -> dict[str, Any]:
    pages = [
        {
            "head": page.head,
            "tables": [_table(grid, {}) for grid in page.grids],
            "legend": page.legend,
            "remarks": page.notes,
        }
        for page in extras.published
    ]
    return {"pages": pages, "notes": extras.published_notes}
