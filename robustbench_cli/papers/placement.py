"""The place of one's own models in a leaderboard, and what differs in how they were measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from robustbench_cli.core.threat_text import format_eps, format_threat
from robustbench_cli.papers.differences import SettingDifference, data_differences
from robustbench_cli.papers.leaderboard import BoardEntry, BoardTable, Leaderboard
from robustbench_cli.report.columns import CLEAN
from robustbench_cli.report.example_files import ExampleFiles
from robustbench_cli.report.how_made import TRUST_MEANINGS
from robustbench_cli.report.robustness_table import TableRow, rows
from robustbench_cli.report.seed_groups import of_kind
from robustbench_cli.report.selection import no_evaluation
from robustbench_cli.report.statistics import Cell, Measurement
from robustbench_cli.runs.outcomes import Outcome
from robustbench_cli.runs.records import Run

ALIKE = 0.02
"""The share by which radii may differ and still stand in one table: 0.031 and 8/255."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The place of one row of the report among the entries of a table."""

    name: str
    model: str
    clean: str
    robust: str
    """The number with its mark; it is ``withheld`` where it means nothing."""
    share: float | None
    """The same in per cent; None where it means nothing, and there is no place."""
    place: int | None
    """From 1; among equals the first."""
    tied: tuple[str, ...]
    """The entries with the very same number, which share the place."""
    best: int | None
    """The place at the upper end of the 95 % interval (of one seed Wilson's); None where there is
    no interval."""
    worst: int | None
    """The place at its lower end; None also for an upper bound, below which anything may be."""
    at_best: bool
    """True if the number is an upper bound: by its trust, or as the attack is not the table's."""
    differs: tuple[SettingDifference, ...]
    audit: str
    """How far the number can be trusted, and what an audit said."""
    runs: tuple[str, ...]


def placements(
    board: Leaderboard,
    table: str,
    entries: Sequence[BoardEntry],
    runs: Sequence[Run],
    files: ExampleFiles,
    like: str | None,
) -> list[Placement]:
    """Return the places of the models that were evaluated on the data and the threat of a table.

    Args:
        entries: those of the table.
        runs: every record, training runs included, oldest first.
        files: the per-example verdicts, for intervals.
        like: an evaluation, or the run that was evaluated, by its id or a part of it; None: all.

    Raises:
        UserError: nothing here is called ``like``.
    """
    about, known = board.tables[table], {run.id: run for run in runs}
    named = rows(runs, files=files)
    if like is not None:
        named = [row for row in named if _is_of(row, like, known)]
        if not named:
            raise no_evaluation("--like", like, runs, "autoattack")
    found = []
    for row in named:
        run = known[row.runs[-1]]
        apart = _setting(board, about, run, known)
        if apart is not None:
            found.append(_placed(board, about, entries, row, known, apart))
    return found


def _is_of(row: TableRow, like: str, known: Mapping[str, Run]) -> bool:
    """Return True if an evaluation of the row, or what it evaluated, is called like this."""
    ids = {name for id_ in row.runs for name in (id_, known[id_].parent or "")}
    every = {name for run in known.values() for name in (run.id, run.parent or "")}
    return like in ids if like in every else any(like in name for name in ids)


def setting_of(run: Run) -> str:
    """Return data set and threat of an evaluation in words."""
    threat = run.settings.threat
    return f"{run.settings.data_name}, {format_threat(threat.norm, threat.eps, threat.mask)}"


def _other_model(run: Run) -> bool:
    """True for what boards have no entries of: models that reject, or behind input defenses."""
    return run.rejection is not None or bool(run.settings.defend)


def _setting(
    board: Leaderboard, about: BoardTable, run: Run, known: Mapping[str, Run]
) -> list[SettingDifference] | None:
    """Return the differences in data and threat; None if the two cannot be compared."""
    threat, data = run.settings.threat, board.datasets.get(about.dataset)
    if data is None or about.eps is None or threat.norm != about.norm or _other_model(run):
        return None
    if abs(threat.eps - about.eps) > ALIKE * about.eps:
        return None
    apart = data_differences(data, known.get(run.parent or "", run), run)
    if apart is None:
        return None
    texts = format_eps(threat.eps), format_eps(about.eps)
    radius = [SettingDifference("eps", *texts)] if texts[0] != texts[1] else []
    mask = [SettingDifference("mask", threat.mask, "none")] if threat.mask else []
    return [*apart, *radius, *mask]


def _placed(
    board: Leaderboard,
    about: BoardTable,
    entries: Sequence[BoardEntry],
    row: TableRow,
    known: Mapping[str, Run],
    apart: Sequence[SettingDifference],
) -> Placement:
    label, standard, cell = _number(board, row, known)
    clean, shown = row.cells.get(CLEAN), cell if isinstance(cell, Cell) else None
    share = None if shown is None else 100 * shown.mean
    ends = shown.interval if shown else None
    trust = cell.trust if cell else None
    theirs = board.attacks[0]
    images = row.facts["n"].raw["n"]
    at_best = not standard or bool(trust and trust.trust == "upper bound")
    differs = [*apart]
    if not standard:
        wanted = " ".join(theirs.values())
        differs.append(SettingDifference("attack", label or "none", wanted))
    if about.n and images != about.n:
        differs.append(SettingDifference("images", str(images), str(about.n)))
    return Placement(
        name=row.facts["defense"].text,
        model=row.facts["model"].text,
        clean=clean.text if clean else "",
        robust=cell.text if cell else "",
        share=share,
        place=None if share is None else _place(share, entries),
        tied=() if share is None else _tied(share, entries),
        best=_place(100 * ends[1], entries) if ends else None,
        worst=_place(100 * ends[0], entries) if ends and not at_best else None,
        at_best=at_best,
        differs=tuple(differs),
        audit=_audit(row, known, TRUST_MEANINGS[trust.trust] if trust else "nothing was measured"),
        runs=row.runs,
    )


def _number(
    board: Leaderboard, row: TableRow, known: Mapping[str, Run]
) -> tuple[str, bool, Measurement | None]:
    """Return the number that stands for a row: its column, whether the attack is the table's own,
    and the entry.  Without the table's attack it is the lowest that is not withheld."""
    attacked = {
        name: cell
        for name, cell in row.cells.items()
        if cell and name != CLEAN and _outcomes(cell, known)
    }
    for name, cell in attacked.items():
        if all(_is_the_boards(board, each) for each in _outcomes(cell, known)):
            return name, True, cell
    least = min(
        attacked.items(),
        key=lambda pair: (not isinstance(pair[1], Cell), -pair[1].rank),
        default=("", None),
    )
    return least[0], False, least[1]


def _outcomes(cell: Measurement, known: Mapping[str, Run]) -> list[Outcome]:
    """Return what a number is the result of; nothing for one that no attack made."""
    sources = [source for origin in cell.origins for source in origin.sources]
    attacks = [known[id_].attacks.get(label) for id_, label in sources if id_ in known]
    return [outcome for outcome in attacks if outcome is not None]


def _is_the_boards(board: Leaderboard, outcome: Outcome) -> bool:
    return any(
        all(str(outcome.params.get(key)) == value for key, value in each.items())
        for each in board.attacks
    )


def _place(per_cent: float, entries: Sequence[BoardEntry]) -> int:
    return 1 + sum(float(entry.best_known) > as_printed(per_cent) for entry in entries)


def _tied(per_cent: float, entries: Sequence[BoardEntry]) -> tuple[str, ...]:
    same = (entry for entry in entries if float(entry.best_known) == as_printed(per_cent))
    return tuple(entry.name for entry in same)


def as_printed(per_cent: float) -> float:
    """Return an accuracy with as many digits as a table has, so that what looks alike is equal."""
    return round(per_cent, 2)


def _audit(row: TableRow, known: Mapping[str, Run], trust: str) -> str:
    weights = {known[id_].weights for id_ in row.runs}
    audits = [run for run in of_kind([*known.values()], "audit") if run.weights in weights]
    graded = [run.audit.claim for run in audits if run.audit and run.audit.claim]
    said = f"audited: {graded[-1].grade}" if graded else "audited, without a claim"
    return f"{trust}; {said if audits else 'no audit (advbench audit)'}"
