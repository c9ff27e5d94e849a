"""The page of an audit as files beside its record: audit.md, audit.html, and its pictures."""

from pathlib import Path

from robustbench_cli.core.atomic_files import write_bytes_atomically
from robustbench_cli.core.errors import UserError
from robustbench_cli.report.audit_html import as_html
from robustbench_cli.report.audit_page import as_markdown, audit_page
from robustbench_cli.runs import records


def write_audit_page(folder: Path) -> list[Path]:
    """Write the page of a finished audit; return its files, without the pictures.

    Without matplotlib the page has no pictures and says how to get them.
    """
    from robustbench_cli.figures._audit_pictures import draw_audit

    run = records.read(folder)
    try:
        pictures = draw_audit(folder, run)
    except UserError as error:
        if "matplotlib" not in str(error):
            raise
        pictures = {}
    page = audit_page(run, pictures)
    written = {"audit.md": as_markdown(page), "audit.html": as_html(page, folder)}
    return [write_bytes_atomically(folder / name, text.encode()) for name, text in written.items()]
