"""What is said below a paper's table of measures of retrieval: units, directions and notes."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from robustbench_cli.core.safe_text import one_line
from robustbench_cli.papers.compare import Beside
from robustbench_cli.papers.paper import Unit

NOTED_SIGN = "*"
"""Written after a measure that there is something to be known of."""
_UNITS: Mapping[Unit, str] = {"%": "in %", "share": "as shares of 1", "": "as they are"}


def retrieval_meaning(pairs: Sequence[Beside]) -> list[str]:
    """Return what our measures are, in which unit, and which direction is better for the model.

    Nothing where none of the published numbers is a measure of retrieval.
    """
    shown = [pair for pair in pairs if pair.meaning.metric.counts == "retrieved"]
    if not shown:
        return []
    units: dict[str, dict[Unit, dict[str, None]]] = defaultdict(lambda: defaultdict(dict))
    for pair in shown:
        units[pair.cell.table][pair.meaning.unit][pair.meaning.metric.title] = None
    said = (
        f"{table}: "
        + "; ".join(f"{', '.join(named[unit])} {_UNITS[unit]}" for unit in _UNITS if unit in named)
        for table, named in units.items()
    )
    better: dict[str, dict[str, None]] = defaultdict(dict)
    for pair in shown:
        if pair.measured and pair.measured.better:
            better[pair.measured.better][pair.meaning.metric.title] = None
    sides = [f"{', '.join(better[side])} {side}" for side in ("higher", "lower") if side in better]
    return [
        "ours: measures of advbench retrieve in the paper's unit, mean ± std over seeds; "
        "diff: ours less the paper's, in that unit",
        *said,
        *([f"better for the model: {'; '.join(sides)}"] if sides else []),
    ]


def noted_measures(pairs: Sequence[Beside]) -> list[str]:
    """Return the notes of measures that are marked or withheld, a line each."""
    notes: dict[tuple[str, str, str], dict[str, None]] = defaultdict(dict)
    for pair in pairs:
        for note in pair.measured.notes if pair.measured else ():
            sign = NOTED_SIGN if pair.ours is not None else pair.trust and pair.trust.state
            whose = pair.measured.trained.id if pair.measured else ""
            notes[str(sign), whose, note][pair.meaning.metric.title] = None
    return [
        one_line(f"{sign} {whose} ({', '.join(named)}): {note}")
        for (sign, whose, note), named in notes.items()
    ]
