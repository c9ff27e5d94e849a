"""The page of an audit in HTML: one file that needs no other."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from robustbench_cli.report.audit_page import CAPTIONS, AuditPage
from robustbench_cli.report.html_template import template_text

_SIGNS: Mapping[str, str] = {"ok": "yes", "not passed": "no"}


def as_html(page: AuditPage, folder: Path) -> str:
    """Return the page as one HTML file with its pictures inside.

    Args:
        folder: of the pictures.

    Raises:
        OSError: a picture cannot be read.
    """
    body = [
        '<p class="kind">Audit</p>',
        f"<h1>{escape(page.title)}</h1>",
        f'<p class="verdict {page.tone}">{escape(page.verdict)}</p>',
        *(f'<p class="note">{escape(note)}</p>' for note in page.notes),
        _table(page.table.titles, page.table.rows),
        *(_figure(what, folder / file) for what, file in page.pictures.items()),
        f'<p class="note">{escape(page.missing)}</p>' if page.missing else "",
        "<h2>What was found</h2>",
        _badges(page.findings, {each: each for each in ("error", "warning", "info")}, "findings")
        or '<p class="note">Nothing.</p>',
        "<h2>What was measured</h2>",
        _badges(page.measures, _SIGNS, "measures"),
        "<h2>The threat model</h2>",
        '<div class="scroll"><table class="card">',
        *(f"<tr><td>{escape(k)}</td><td>{escape(v)}</td></tr>" for k, v in page.card.items()),
        "</table></div>",
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Audit: {escape(page.title)}</title>\n"
        f"<style>{template_text('style.css')}</style>\n</head>\n"
        f"<body>\n<main>\n{chr(10).join(filter(None, body))}\n</main>\n</body>\n</html>\n"
    )


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return the table of the attacks; the second row is the claimed one."""
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    lines = []
    for number, row in enumerate(rows):
        numeric = ["", ' class="number"', ' class="number"', "", ""]
        cells = (f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(numeric, row, strict=True))
        lines.append(f"<tr{' class=claimed' if number == 1 else ''}>{''.join(cells)}</tr>")
    body = f"<tr>{head}</tr>{chr(10).join(lines)}"
    return f'<div class="scroll"><table class="attacks">{body}</table></div>'


def _badges(rows: Sequence[Sequence[str]], kinds: Mapping[str, str], name: str) -> str:
    """Return rows whose first cell is a badge."""
    lines = [
        f'<tr><td><span class="badge {kinds.get(sign, "none")}">{escape(sign)}</span></td>'
        f"<td>{escape(check)}</td><td>{escape(text)}</td></tr>"
        for sign, check, text in rows
    ]
    if not lines:
        return ""
    return f'<div class="scroll"><table class="measures {name}">{chr(10).join(lines)}</table></div>'


def _figure(what: str, file: Path) -> str:
    """Return a picture that is part of the page."""
    content = file.read_bytes()
    # A PNG file states its width there; pictures have two pixels for each of the page's.
    width = int.from_bytes(content[16:20]) // 2
    data = base64.b64encode(content).decode()
    caption = escape(CAPTIONS[what])
    image = f'<img width="{width}" alt="{caption}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"
