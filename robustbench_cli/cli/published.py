"""A paper's tables as they were printed: their rows, their columns, and remarks below."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from string import ascii_lowercase
from typing import Any

from robustbench_cli.cli.formats import Grid, Page, TableEntry
from robustbench_cli.core.threat_text import format_eps
from robustbench_cli.papers.paper import Metric, Paper, PaperCell, Published

Cells = Sequence[Published]
Metrics = Mapping[str, Metric]


def published_page(paper: Paper, cells: Cells) -> Page:
    """Numbers of a paper, a table each, rows for methods and columns for what was measured."""
    if not cells:
        return no_numbers_page(paper)
    metrics, remarks = paper.words.metrics, Remarks.of(cells)
    lines = [{"paper": paper.name, **raw(cell)} for cell in cells]
    return Page(
        head=head(paper),
        grids=[_grid(TableBlock.of(group, metrics), remarks) for group in groups(cells, metrics)],
        notes=remarks.lines,
        lines=lines,
        objects=lines,
    )


def no_numbers_page(paper: Paper) -> Page:
    """A paper without a number here: what it is, and why there is none, as data, too."""
    lines = [{"paper": paper.name, "value": None, "lacking": paper.about}]
    return Page(head=head(paper), grids=[], notes=[], lines=lines, objects=lines)


def head(paper: Paper) -> list[str]:
    """Return the lines above a paper's tables: title, citation, and the source of the numbers."""
    return [paper.title, paper.citation, *([paper.about] if paper.about else [])]


def raw(cell: Published) -> dict[str, Any]:
    """A number as data."""
    values = asdict(cell)
    numbers = {k: None if (x := values[k]) is None else float(x) for k in ("value", "std")}
    return {**values, **numbers}


def groups(cells: Cells, metrics: Metrics, *, together: bool = True) -> Iterator[Cells]:
    """The numbers of each table, by data set.

    Args:
        together: leave data sets that have the same columns in one table.
    """
    tables: dict[str, list[Published]] = defaultdict(list)
    for cell in cells:
        tables[cell.table].append(cell)
    for table in tables.values():
        sets: dict[str, list[Published]] = defaultdict(list)
        for cell in table:
            sets[cell.dataset].append(cell)
        columns = {
            frozenset(TableBlock.of(each, metrics).labels.values()) for each in sets.values()
        }
        yield from [table] if len(columns) == 1 and together else sets.values()


FACTS = ("method", "dataset", "model", "eps", "attack")


@dataclass(frozen=True, kw_only=True)
class TableBlock:
    """Numbers that share a table's rows and columns."""

    cells: Cells
    rows: Mapping[PaperCell, tuple[str, ...]]
    """For the place of each number: what its row is, in the order of ``FACTS``."""
    labels: Mapping[PaperCell, str]
    """For the place of each number: its column."""

    @classmethod
    def of(cls, cells: Cells, metrics: Metrics) -> "TableBlock":
        """Arrange numbers in rows and columns."""
        whole = {cell.place: _completed(cell, cells) for cell in cells}
        attacks: dict[tuple[str, ...], set[str]] = defaultdict(set)
        for cell in whole.values():
            attacks[_model(cell)] |= {cell.attack} - {""}
        # One attack per row is a fact on the row, and what differs is what was counted.
        single = all(len(found) <= 1 for found in attacks.values())
        only = {model: "".join(found) if single else "" for model, found in attacks.items()}
        titles = {
            place: metrics[cell.metric].title if single else _label(cell, metrics)
            for place, cell in whole.items()
        }
        alike: dict[tuple[tuple[str, ...], str], list[Published]] = defaultdict(list)
        for place, cell in whole.items():
            alike[_model(cell), titles[place]].append(cell)
        apart = {title: _odd(found) for (_, title), found in alike.items() if len(found) > 1}

        def label(cell: Published) -> str:
            title = titles[cell.place]
            more = (f"{key} {cell.params.get(key, '')}" for key in apart.get(title, ()))
            return ", ".join([title, *more])

        return cls(
            cells=cells,
            rows={place: (*_model(cell), only[_model(cell)]) for place, cell in whole.items()},
            labels={cell.place: label(cell) for cell in cells},
        )

    @property
    def shared(self) -> Mapping[str, str]:
        """Facts that are the same wherever they are known."""
        columns = zip(FACTS, zip(*self.rows.values(), strict=True), strict=True)
        known = {fact: {text for text in texts if text} for fact, texts in columns}
        return {fact: next(iter(texts), "") for fact, texts in known.items() if len(texts) <= 1}

    @property
    def facts(self) -> list[str]:
        """The facts that tell the rows apart; the method in any case."""
        return [fact for fact in FACTS if fact == "method" or fact not in self.shared]

    @property
    def title(self) -> str:
        """The table, and what all its rows have in common."""
        named = _named(self.cells[0].table)
        common = [text for fact, text in self.shared.items() if text and fact != "method"]
        return f"{named}: {', '.join(common)}" if common else named

    def row(self, cell: Published) -> tuple[str, ...]:
        """Return the facts of a number's row that tell it from others."""
        known = dict(zip(FACTS, self.rows[cell.place], strict=True))
        return tuple(known[fact] for fact in self.facts)


def _clean_first(cells: Cells) -> Cells:
    """In order, but as tables have it: images as they are, then under attack."""
    return sorted(cells, key=lambda cell: bool(cell.attack))


def _named(table: str) -> str:
    """``table 5``; other names tell of themselves what they are."""
    return f"table {table}" if table[0].isdigit() else table


def _completed(cell: Published, among: Cells) -> Published:
    """With the radius that the rest of its row states, as clean accuracies often have none."""
    if cell.epsilon is not None:
        return cell
    row = (cell.method, cell.dataset, cell.architecture)
    mates = (c for c in among if c.epsilon and (c.method, c.dataset, c.architecture) == row)
    mate = next(mates, cell)
    return replace(cell, norm=mate.norm, epsilon=mate.epsilon)


def _model(cell: Published) -> tuple[str, str, str, str]:
    eps = "" if cell.epsilon is None else format_eps(cell.epsilon)
    return cell.method, cell.dataset, cell.architecture, f"{cell.norm} {eps}".strip()


def _label(cell: Published, metrics: Metrics) -> str:
    """Return the name of a number's column."""
    title = metrics[cell.metric].title
    if not cell.attack or cell.attack == title:
        return title
    return cell.attack if cell.metric == "robust_acc" else f"{cell.attack}: {title}"


def _odd(alike: Cells) -> list[str]:
    """Return the stated parameters in which these attacks differ."""
    keys = dict.fromkeys(key for cell in alike for key in cell.params)
    return [key for key in keys if len({cell.params.get(key) for cell in alike}) > 1]


def _grid(block: TableBlock, remarks: "Remarks") -> Grid:
    named = list(dict.fromkeys(block.labels[cell.place] for cell in _clean_first(block.cells)))
    rows: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for cell in block.cells:
        rows[block.row(cell)][block.labels[cell.place]] = remarks.marked(cell)
    return Grid(
        title=block.title,
        columns=[*block.facts, *named],
        rows=[
            [TableEntry(text) for text in (*row, *(found.get(label, "") for label in named))]
            for row, found in rows.items()
        ],
        facts=frozenset(block.facts),
        left=frozenset(block.facts),
    )


@dataclass(frozen=True, kw_only=True)
class Remarks:
    """Notes on numbers: those on a whole table once, the others by letter."""

    common: Mapping[str, Sequence[str]]
    """For each table, what holds of all its numbers."""
    letters: Mapping[str, str]

    @classmethod
    def of(cls, cells: Cells) -> "Remarks":
        """The remarks on these numbers, in order."""
        tables: dict[str, list[Published]] = defaultdict(list)
        for cell in cells:
            tables[cell.table].append(cell)
        common = {
            table: [note for note in each[0].notes if all(note in cell.notes for cell in each)]
            for table, each in tables.items()
        }
        single = dict.fromkeys(
            note for cell in cells for note in cell.notes if note not in common[cell.table]
        )
        letters = {note: lettered(place, ascii_lowercase) for place, note in enumerate(single)}
        return cls(common=common, letters=letters)

    def marked(self, cell: Published) -> str:
        """A number as it was printed, with the letters of its remarks."""
        spread = "" if cell.std is None else f" ± {cell.std}"
        marks = [self.letters[note] for note in cell.notes if note in self.letters]
        return f"{cell.value}{spread}" + (f" ({','.join(marks)})" if marks else "")

    @property
    def lines(self) -> list[str]:
        """The lines below the tables."""
        of_tables: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for table, notes in self.common.items():
            of_tables[tuple(notes)].append(_named(table))
        common = [(", ".join(tables), "; ".join(notes)) for notes, tables in of_tables.items()]
        return [
            *(f"{tables}: {notes}" for tables, notes in common if notes),
            *(f"({letter}) {note}" for note, letter in self.letters.items()),
        ]


def lettered(place: int, alphabet: str) -> str:
    """``a`` for the first, ``aa`` after ``z``."""
    more, rest = divmod(place, len(alphabet))
    return (lettered(more - 1, alphabet) if more else "") + alphabet[rest]
