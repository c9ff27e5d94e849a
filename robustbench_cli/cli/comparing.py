"""Our numbers beside a paper's: a line for each, what differs, and how to get what is missing."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from string import ascii_uppercase
from typing import Any

from robustbench_cli.cli.formats import Grid, Page, TableEntry
from robustbench_cli.cli.published import (
    Remarks,
    TableBlock,
    groups,
    head,
    lettered,
    no_numbers_page,
    raw,
)
from robustbench_cli.cli.retrieval_notes import NOTED_SIGN, noted_measures, retrieval_meaning
from robustbench_cli.papers import paper_names
from robustbench_cli.papers.choice import chosen_cells
from robustbench_cli.papers.compare import Beside, beside
from robustbench_cli.papers.howto import Known, Wanted, commands, lacking, training_command
from robustbench_cli.papers.paper import Paper
from robustbench_cli.papers.reading import load_paper
from robustbench_cli.report.columns import CLEAN
from robustbench_cli.report.number_trust import (
    BOUND_SIGN,
    LOWER_BOUND_SIGN,
    before_checks,
    derived_text,
)
from robustbench_cli.report.trust_legend import DERIVED_MEANING, JudgedNumber, trust_legend
from robustbench_cli.runs.records import Run

MEASURED, SETTING = "measured", "what differs (paper)"
NUMBERS = ("paper", "ours", "diff")
MEANING = (
    "ours: accuracy in %, right before and after the attack, or the error that it leaves, or "
    "AUROC; mean ± std over seeds; diff: ours less the paper's, in points"
)


def paper_page(name: str, table: str | None, dataset: str | None, runs: Sequence[Run]) -> Page:
    """The numbers of a paper, or of one of its tables, with ours beside.

    Args:
        dataset: those on this data set only.

    Raises:
        UserError: there is no such paper or table, or it has no numbers on this data set.
    """
    paper = load_paper(name)
    kept = chosen_cells(paper, table, dataset)
    return comparison_page(paper, beside(paper, kept, runs), Known.scan())


def measured_page(runs: Sequence[Run]) -> list[Page]:
    """Return a page for each paper with the numbers that have one of ours beside them."""
    known, pages = Known.scan(), []
    for name in paper_names():
        paper = load_paper(name)
        pairs = [pair for pair in beside(paper, paper.cells, runs) if pair.measured]
        if pairs:
            pages.append(comparison_page(paper, pairs, known))
    return pages


def comparison_page(paper: Paper, pairs: Sequence[Beside], known: Known) -> Page:
    """The numbers of a paper, each with ours beside it."""
    if not paper.cells:
        return no_numbers_page(paper)
    metrics, found = paper.words.metrics, {pair.cell.place: pair for pair in pairs}
    cells = [pair.cell for pair in pairs]
    sheet = ComparisonSheet(remarks=Remarks.of(cells), known=known)
    blocks = [TableBlock.of(group, metrics) for group in groups(cells, metrics, together=False)]
    grids = [sheet.grid(block, [found[cell.place] for cell in block.cells]) for block in blocks]
    objects = [_object(paper, pair, known) for pair in pairs]
    return Page(
        head=head(paper),
        grids=grids,
        notes=[*_meaning(pairs), *sheet.legend, *sheet.remarks.lines],
        listing=sheet.listing,
        legend=[*_legend(pairs), *noted_measures(pairs)],
        lines=[{key: _flat(value) for key, value in each.items()} for each in objects],
        objects=objects,
    )


def _meaning(pairs: Sequence[Beside]) -> list[str]:
    """Return what our numbers are: accuracies and AUROCs, or measures of retrieval."""
    measures = retrieval_meaning(pairs)
    counted = {pair.meaning.metric.counts for pair in pairs} - {"", "retrieved"}
    return [*([MEANING] if counted or not measures else []), *measures]


@dataclass(kw_only=True)
class ComparisonSheet:
    """The models (by letter) and commands (by number) that the tables of a page refer to."""

    remarks: Remarks
    known: Known
    models: dict[tuple[str, str], str] = field(default_factory=dict)
    """For a training run and how it differs: its letter."""
    wanted: dict[str, list[Wanted]] = field(default_factory=dict)
    """For a model that is there or must be trained: the numbers to be measured."""
    trained: dict[str, Run] = field(default_factory=dict)

    def grid(self, block: TableBlock, pairs: Sequence[Beside]) -> Grid:
        """A table, the numbers of one model one below the other."""
        rows: dict[tuple[str, ...], list[Beside]] = {}
        for pair in pairs:
            rows.setdefault(block.row(pair.cell), []).append(pair)
        lines = []
        for row, mates in rows.items():
            runs = [pair.measured.trained for pair in mates if pair.measured]
            runs += [pair.model for pair in mates if pair.model]
            names, said = row, ""
            for pair in sorted(mates, key=lambda pair: bool(pair.cell.attack)):
                label = block.labels[pair.cell.place]
                mark, setting = self._setting(pair, runs[0] if runs else None)
                numbers = (self.remarks.marked(pair.cell), *_ours(pair))
                again = setting if setting != said or pair.measured else ""
                lines.append([TableEntry(text) for text in (*names, label, *numbers, mark, again)])
                names, said = ("",) * len(row), setting
        left = frozenset({*block.facts, MEASURED, "run", SETTING})
        return Grid(
            title=block.title,
            columns=[*block.facts, MEASURED, *NUMBERS, "run", SETTING],
            rows=lines,
            facts=left,
            left=left,
            prose=frozenset({*block.facts, MEASURED, SETTING}),
        )

    def _setting(self, pair: Beside, run: Run | None) -> tuple[str, str]:
        """The letter of a model and how its measurement differs, or how to get a number."""
        if found := pair.measured:
            count = found.accuracy.seeds
            named = found.trained.id + (f" ({count} seeds)" if count > 1 else "")
            model = named, ", ".join(map(str, pair.training))
            letter = self.models.setdefault(model, lettered(len(self.models), ascii_uppercase))
            return letter, ", ".join(map(str, pair.attack))
        if reason := lacking(pair.cell, pair.meaning, self.known):
            return "", reason
        made = run.id if run else training_command(pair.cell, pair.meaning, self.known)
        self.trained |= {made: run} if run else {}
        self.wanted.setdefault(made, []).append((pair.cell, pair.meaning))
        return f"[{[*self.wanted].index(made) + 1}]", ""

    @property
    def legend(self) -> list[str]:
        """The meaning of the models' letters, a line each."""
        return [
            f"{letter} = {run}: {apart or 'no difference in training is known'}"
            for (run, apart), letter in self.models.items()
        ]

    @property
    def listing(self) -> list[str]:
        """The commands by number."""
        return [
            f"[{number}] {line}" if place == 0 else f"{' ' * len(f'[{number}]')} {line}"
            for number, (key, pairs) in enumerate(self.wanted.items(), 1)
            for place, line in enumerate(commands(pairs, self.known, self.trained.get(key)))
        ]


def _ours(pair: Beside) -> tuple[str, str]:
    """Our number and the difference, with the mark of their trust or of a note.

    In per cent they have two digits, else four.
    """
    trust = pair.trust
    if pair.ours is None or pair.points is None:
        return (trust.written("") if trust else ""), ""
    digits = 2 if pair.meaning.unit == "%" else 4
    spread = "" if pair.std is None else f" ± {pair.std:.{digits}f}"
    number, points = f"{pair.ours:.{digits}f}{spread}", f"{pair.points:+.{digits}f}"
    if trust is None:
        mark = f" {NOTED_SIGN}" if pair.measured and pair.measured.notes else ""
        return number + mark, points + mark
    if pair.measured and pair.measured.detector:
        return derived_text(trust, number), derived_text(trust, points)
    lower = "" if pair.lower is None else f"{pair.lower:.2f}"
    sign = LOWER_BOUND_SIGN if pair.meaning.metric.error else BOUND_SIGN
    return trust.written(number, lower, sign=sign), derived_text(trust, points)


def _legend(pairs: Sequence[Beside]) -> list[str]:
    """Return what the marks of our numbers mean, and why numbers have them."""
    # No check looks at a measure of retrieval; its notes say why it is withheld.
    judging = [pair for pair in pairs if pair.measured and not pair.measured.measure]
    judged = [
        JudgedNumber(row=pair.measured.trained.id, column=_measured(pair), trust=pair.trust)
        for pair in judging
        if pair.measured and pair.trust
    ]
    bounds = [pair for pair in judging if pair.trust and pair.trust.trust == "upper bound"]
    errors = any(pair.meaning.metric.error for pair in bounds)
    meanings = [
        f"{LOWER_BOUND_SIGN} = an error that is a lower bound: something hides the truth",
        DERIVED_MEANING,
    ]
    used = {pair.measured.run.id: pair.measured.run for pair in judging if pair.measured}
    old = sum(map(before_checks, used.values()))
    applies = [line for line, used in zip(meanings, (errors, bool(bounds)), strict=True) if used]
    return [*applies, *trust_legend(judged, unseen=old)]


def _measured(pair: Beside) -> str:
    """Return what our number was measured under: an attack's name, or ``clean``."""
    assert pair.measured
    return str(pair.measured.params.get("name", CLEAN))


def _flat(value: Any) -> Any:
    """A value in a CSV file, where a column of whole numbers stays one if some are missing."""
    return "; ".join(value) if isinstance(value, list) else "" if value is None else value


def _object(paper: Paper, pair: Beside, known: Known) -> dict[str, Any]:
    """A number with all there is to say of it."""
    cell, meaning, found = pair.cell, pair.meaning, pair.measured
    reason = lacking(cell, meaning, known)
    run = found.trained if found else pair.model
    return {
        "paper": paper.name,
        **raw(cell),
        "ours": pair.ours,
        "ours_std": pair.std,
        "ours_trust": pair.trust.trust if pair.trust else None,
        "ours_found": pair.lower,
        "ours_notes": [*found.notes] if found else [],
        "unit": meaning.unit if meaning.metric.counts else None,
        "better": (found.better if found else "") or None,
        "n": found.run.n if found else None,
        "difference": None if pair.points is None else round(pair.points, 6),
        "differs": list(map(str, (*pair.training, *pair.attack))),
        "runs": [found.trained.id, found.run.id] if found else [],
        "commands": [] if reason else commands([(cell, meaning)], known, run),
        "lacking": reason,
    }
