"""The summary that an audit ends with: the claim's grade, the battery, and the page."""

from collections.abc import Sequence
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from robustbench_cli.cli.console import rendered, table_console
from robustbench_cli.cli.eval_summary import evaluation_table, refuse_unsound
from robustbench_cli.cli.exit_codes import ExitCode
from robustbench_cli.core.safe_text import one_line, printable
from robustbench_cli.core.threat_text import format_eps
from robustbench_cli.report.number_trust import WITHHELD, attack_trust
from robustbench_cli.runs import records


def print_audit(folder: Path, files: Sequence[Path] = ()) -> None:
    """Print the numbers of an audit, what its battery found, the page's files, and the folder."""
    run = records.read(folder)
    typer.echo(evaluation_table(run, table_console()), nl=False)
    typer.echo(battery_table(run, table_console()), nl=False)
    if run.audit and run.audit.claim:
        typer.echo(one_line(run.audit.claim.sentence))
    for file in files:
        typer.echo(file)
    typer.echo(folder)


def refuse_audit(folder: Path) -> None:
    """Say what is not sound or not reproduced on standard error, and end with code 3.

    Raises:
        typer.Exit: with code 3; not raised where all is sound and the claim, if any, reproduced.
    """
    run = records.read(folder)
    claim = run.audit.claim if run.audit else None
    if claim and claim.grade != "reproduced":
        typer.echo(f"advbench: {printable(claim.sentence)}", err=True)
        raise typer.Exit(code=ExitCode.UNSOUND)
    refuse_unsound(folder)


def battery_table(run: records.Run, console: Console) -> str:
    """Return the attacks of an audit's battery as a table, and what its checks measured."""
    if run.audit is None:
        return ""
    withheld = any(attack_trust(run, label).withheld for label in run.attacks)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("battery", "eps", "tried", "broke", "left", "seconds"):
        table.add_column(title, justify="left" if title == "battery" else "right")
    for each in run.audit.attacks:
        table.add_row(
            escape(one_line(each.label)),
            format_eps(each.eps),
            str(each.tried),
            str(each.broken),
            WITHHELD if withheld else f"{each.left:.2%}",
            f"{each.seconds:.1f}",
        )
    signs = {True: "ok", False: "NOT", None: "-"}
    lines = [
        Text(one_line(f"{signs[each.passed]:>4} {each.check}: {each.text}"))
        for each in run.audit.measures
    ]
    return rendered(console, [Text(""), table, Text(""), *lines])
