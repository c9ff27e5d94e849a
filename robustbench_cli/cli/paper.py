"""``advbench paper list`` and ``advbench paper show``: the published tables."""

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

import typer

from robustbench_cli.cli import completion, options
from robustbench_cli.cli.default_command import DefaultCommandGroup
from robustbench_cli.cli.formats import Grid, Page, TableEntry
from robustbench_cli.cli.strict_command import StrictCommand
from robustbench_cli.cli.writing import format_of, put


class PaperGroup(DefaultCommandGroup):
    """``advbench paper NAME`` means ``advbench paper show NAME``."""

    default = "show"

    def begins_default(self, word: str) -> bool:
        """Return True for a paper or a leaderboard, and for what is nearer to one than to a
        command."""
        from robustbench_cli import papers

        names = {*papers.titles(), *papers.board_titles()}
        if word.startswith("-"):
            return False
        return word.strip().lower() in names or not get_close_matches(word, self.commands)


paper = typer.Typer(cls=PaperGroup, invoke_without_command=True, rich_markup_mode=None)

PaperFormatOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        "-f",
        help="terminal, md, latex, csv or json (default: terminal, or as --out ends).",
    ),
]
OutFileOption = Annotated[
    Path | None, typer.Option(help="Write to this file, e.g. table.md, not to the screen.")
]


@paper.callback()
def paper_command(ctx: typer.Context) -> None:
    """Published tables: which there are, and what they say (advbench paper NAME).

    advbench report --paper NAME puts our numbers beside them.
    """
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


@paper.command("list", cls=StrictCommand)
def paper_list_command(
    format_: PaperFormatOption = None, out: OutFileOption = None, debug: options.DebugOption = False
) -> None:
    """Name the papers whose numbers are here, with the tables and how many numbers there are.

    \b
    advbench paper list
    advbench paper show trades --table 5
    advbench report --paper trades           with our numbers beside them
    """
    from robustbench_cli import papers
    from robustbench_cli.papers.leaderboard import load_board
    from robustbench_cli.papers.reading import load_paper

    found = [load_paper(name) for name in papers.paper_names()]
    boards = [load_board(name) for name in papers.paper_names(papers.BOARDS)]
    lines = [
        {
            "paper": each.name,
            "title": each.title,
            "year": each.year,
            "numbers": len(each.cells),
            "tables": ", ".join(each.tables),
        }
        for each in found
    ]
    lines += [
        {
            "paper": each.name,
            "title": each.title,
            "year": each.year,
            "numbers": each.numbers,
            "tables": ", ".join(each.tables),
        }
        for each in boards
    ]
    columns = list(lines[0])
    grid = Grid(
        columns=columns,
        rows=[[TableEntry(str(line[name])) for name in columns] for line in lines],
        facts=frozenset({"paper", "title", "tables"}),
        left=frozenset({"paper", "title", "tables"}),
        prose=frozenset({"title", "tables"}),
    )
    put(Page(grids=[grid], notes=[], lines=lines, objects=lines), format_of(format_, out), out)


@paper.command("show", cls=StrictCommand)
def paper_show_command(
    name: Annotated[
        str,
        typer.Argument(
            help="trades, rst, awp, ...: advbench paper list names them.",
            autocompletion=completion.papers,
        ),
    ],
    table: Annotated[
        str | None, typer.Option(help="This table only, as the paper numbers it: 5, 2(a).")
    ] = None,
    format_: PaperFormatOption = None,
    out: OutFileOption = None,
    debug: options.DebugOption = False,
) -> None:
    """Print a paper's tables: methods below each other, what was measured side by side.

    Letters in brackets refer to remarks below, which tell of doubtful numbers, too.

    \b
    advbench paper show trades --table 5
    advbench paper show rst --format md
    advbench paper show robustbench --table 'CIFAR-10 L2'
    """
    from robustbench_cli.cli import boards, published
    from robustbench_cli.papers.leaderboard import find_board, load_board
    from robustbench_cli.papers.reading import load_paper

    if board := find_board(name):
        page = boards.board_page(load_board(board), table)
        put(page, format_of(format_, out), out)
        return
    found = load_paper(name)
    put(published.published_page(found, found.only(table)), format_of(format_, out), out)
