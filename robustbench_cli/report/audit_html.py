"""The page of an audit in HTML: one file that needs no other."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from robustbench_cli.report.audit_page import CAPTIONS, AuditPage

STYLE_SHEET = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: #1c1f23; line-height: 1.5;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; }
.kind { color: #5b6470; letter-spacing: .08em; text-transform: uppercase; font-size: .78rem;
  margin: 0; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: .2rem 0 1.2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.6rem 0 .8rem; }
.verdict { border-left: .35rem solid; padding: .8rem 1.1rem; margin: 0 0 1rem; font-size: 1.08rem;
  overflow-wrap: anywhere; }
.good { border-color: #00795c; background: #eef8f4; }
.doubtful { border-color: #b07600; background: #fdf6e6; }
.bad { border-color: #b3261e; background: #fcefee; }
.note { color: #444b54; margin: .4rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { text-align: left; padding: .42rem .8rem .42rem 0; border-bottom: 1px solid #e4e7eb;
  vertical-align: top; overflow-wrap: break-word; }
table.attacks { min-width: 56rem; }
table.measures, table.card { min-width: 34rem; }
th { color: #5b6470; font-weight: 600; border-bottom-color: #aab2bd; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
tr.claimed td { font-weight: 600; background: #f5f7f9; }
table.card td:first-child, table.measures td:nth-child(2) { white-space: nowrap; color: #5b6470; }
.badge { display: inline-block; min-width: 5.2rem; text-align: center; border-radius: .3rem;
  font-size: .78rem; font-weight: 600; padding: .1rem .5rem; white-space: nowrap; }
.error, .no { background: #fcefee; color: #8f1d17; }
.warning { background: #fdf0d9; color: #7a4e00; }
.info, .none { background: #eef1f4; color: #48515c; }
.yes { background: #e6f4ee; color: #00614a; }
figure { margin: 1.6rem 0; }
figure img { max-width: 100%; height: auto; display: block; }
figcaption { color: #5b6470; font-size: .88rem; margin-top: .4rem; max-width: 46rem; }
@media print { main { padding: 0; } h2 { break-after: avoid; } figure, tr { break-inside: avoid; } }
"""
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
        f"<title>Audit: {escape(page.title)}</title>\n<style>{STYLE_SHEET}</style>\n</head>\n"
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
