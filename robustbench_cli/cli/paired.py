"""The tables of ``advbench report --compare``: two models on the same test images."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from robustbench_cli.cli.formats import Grid, Page, TableEntry
from robustbench_cli.cli.tables import MEANING_OF_ACCURACY, spread_note
from robustbench_cli.core.safe_text import one_line

if TYPE_CHECKING:
    from robustbench_cli.report.paired_rows import PairedLine, PairedRows
    from robustbench_cli.report.robustness_table import TableRow
    from robustbench_cli.report.trust_legend import JudgedNumber

_FIRST, _SECOND, _MEASURED = "A", "B", "measured"
_COUNTS = ("both right", "only A", "only B", "both wrong")
_DIFFERENCE, _P = "A - B [95 % interval]", "p"


def paired_page(found: Sequence["PairedRows"]) -> Page:
    """A table for each threat and number of images under which both were evaluated."""
    from robustbench_cli.report.number_trust import SAMPLED_SIGN
    from robustbench_cli.report.trust_legend import trust_legend

    lines = [line for pair in found for line in pair.lines]
    tables = [line.table for line in lines]
    cells = [cell for line in lines for cell in (line.first, line.second)]
    exact = any(table.exact for table in tables)
    resampled = any(not table.exact for table in tables)
    withheld = [one_line(name) for pair in found for name in pair.withheld]
    open_ = [one_line(name) for pair in found for name in pair.open]
    notes = {
        MEANING_OF_ACCURACY + spread_note(cells): True,
        "both right, only A, only B, both wrong: numbers of images"
        + ("; over several seeds their averages over pairs of seeds" if resampled else ""): True,
        "A - B: difference in points, with Newcombe's interval for paired shares; "
        "p: McNemar's exact test": exact,
        "A - B: difference in points, with an interval for which images and seeds are resampled; "
        "p: the larger of random signs of the images' differences and Student's t over images "
        "and seeds": resampled,
        f"not compared, because it means nothing for one of them: {', '.join(withheld)}": bool(
            withheld
        ),
        "not compared, because one of them is not finished on all images "
        f"({SAMPLED_SIGN}): {', '.join(open_)}": bool(open_),
    }
    objects = [_object(pair, line) for pair in found for line in pair.lines]
    return Page(
        head=[
            f"{side} = {_title(getattr(found[0], which))}"
            for side, which in ((_FIRST, "first"), (_SECOND, "second"))
        ],
        grids=list(map(_grid, found)),
        notes=[note for note, applies in notes.items() if applies],
        lines=[{k: v for k, v in each.items() if not isinstance(v, list)} for each in objects],
        objects=objects,
        legend=trust_legend(_judged(found)),
    )


def _judged(found: Sequence["PairedRows"]) -> list["JudgedNumber"]:
    """The numbers of both sides and how far each can be trusted."""
    from robustbench_cli.report.trust_legend import JudgedNumber

    return [
        JudgedNumber(row=side, column=one_line(line.measured), trust=cell.trust)
        for pair in found
        for line in pair.lines
        for side, cell in ((_FIRST, line.first), (_SECOND, line.second))
        if cell.trust
    ]


def _title(row: "TableRow") -> str:
    from robustbench_cli.report.model_names import SAME

    seeds = len(row.seeds)
    names = (row.facts[key].text for key in ("defense", "model"))
    name = ", ".join(name for name in names if name != SAME)
    return one_line(f"{name}, {seeds} seeds" if seeds > 1 else f"{name}, seed {row.seeds[0]}")


def _grid(pair: "PairedRows") -> Grid:
    facts = pair.first.facts
    return Grid(
        title=one_line(f"{facts['dataset'].text}, {facts['eps'].text}, n {facts['n'].text}"),
        columns=[_MEASURED, _FIRST, _SECOND, *_COUNTS, _DIFFERENCE, _P],
        rows=[[TableEntry(text) for text in _texts(line)] for line in pair.lines],
        facts=frozenset({_MEASURED}),
        left=frozenset({_MEASURED}),
    )


def _texts(line: "PairedLine") -> list[str]:
    table = line.table
    low, high = table.interval
    counts = (table.both_right, table.only_first, table.only_second, table.both_wrong)
    return [
        one_line(line.measured),
        line.first.text,
        line.second.text,
        *(str(each) if table.exact else f"{each:.1f}" for each in counts),
        f"{100 * table.difference:+.2f} [{100 * low:+.1f}, {100 * high:+.1f}]",
        f"{table.p:.2g}",
    ]


def _object(pair: "PairedRows", line: "PairedLine") -> dict[str, Any]:
    """A comparison with all there is to say of it; shares in full precision."""
    facts, table = pair.first.facts, line.table
    return {
        **{key: value for key in ("dataset", "eps", "n") for key, value in facts[key].raw.items()},
        "measured": line.measured,
        "first": pair.first.facts["defense"].text,
        "second": pair.second.facts["defense"].text,
        "first_accuracy": line.first.mean,
        "second_accuracy": line.second.mean,
        **{
            f"{side}_trust": cell.trust.trust
            for side, cell in (("first", line.first), ("second", line.second))
            if cell.trust
        },
        "both_right": table.both_right,
        "only_first": table.only_first,
        "only_second": table.only_second,
        "both_wrong": table.both_wrong,
        "difference": table.difference,
        "low": table.interval[0],
        "high": table.interval[1],
        "p": table.p,
        "exact": table.exact,
        "first_seeds": list(pair.first.seeds),
        "second_seeds": list(pair.second.seeds),
        "first_runs": list(pair.first.runs),
        "second_runs": list(pair.second.runs),
    }
