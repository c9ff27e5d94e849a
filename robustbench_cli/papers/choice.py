"""The numbers of a paper that are asked for, by table and by data set."""

from robustbench_cli.core.errors import UserError, hint
from robustbench_cli.papers.paper import Paper, Published


def chosen_cells(paper: Paper, table: str | None, dataset: str | None) -> list[Published]:
    """Return the numbers of a table, or of all, on a data set, or on any.

    Raises:
        UserError: there is no such table, or it has no numbers on this data set.
    """
    cells, known = paper.only(table), paper.words.datasets
    of = {cell.dataset: known[cell.dataset].name for cell in cells if cell.dataset in known}
    if dataset not in (None, *of.values()):
        named = f"{dataset!r}{hint(str(dataset), of.values())}"
        raise UserError(f"paper {paper.name!r} has no numbers on {named}")
    return [cell for cell in cells if dataset in (None, of.get(cell.dataset))]
