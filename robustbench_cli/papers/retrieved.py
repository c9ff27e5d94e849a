"""Measures of retrieval by models that were trained here, to stand beside published ones."""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence

from robustbench_cli.papers.differences import MeasuredAccuracy
from robustbench_cli.report import seed_groups
from robustbench_cli.report.number_trust import NumberTrust
from robustbench_cli.report.statistics import Cell
from robustbench_cli.report.withheld import WithheldNumber
from robustbench_cli.runs import records
from robustbench_cli.runs.outcomes import Measure
from robustbench_cli.runs.records import Run
from robustbench_cli.runs.retrieval_rows import RowAttack, row_attacks


def retrieved(runs: Sequence[Run]) -> Iterator[MeasuredAccuracy]:
    """Every measure of ``advbench retrieve`` on models that were trained here, seeds joined.

    Of a repeated one the latest counts.  A measure that means nothing for one seed is withheld:
    the mean of the others would be one of chosen seeds.

    Args:
        runs: every record, training runs included, oldest first.

    Raises:
        DamagedRecord: a record is damaged.
    """
    groups: dict[Hashable, dict[int, tuple[Run, Run, RowAttack, Measure]]] = defaultdict(dict)
    for run, parent, trained in seed_groups.done_on_trained(runs, "retrieve"):
        rows = row_attacks(run)
        for measure in run.measures:
            row = rows[measure.of]
            alike = seed_groups.group_key(parent), _setting(run, row), measure.name
            groups[alike][parent.seed] = run, trained, row, measure
    for found in groups.values():
        run, trained, row, _ = [*found.values()][-1]
        threat = run.settings.threat
        measures = [measure for *_, measure in found.values()]
        yield MeasuredAccuracy(
            accuracy=_joined(measures),
            params=row.params,
            norm=threat.norm,
            eps=threat.eps if row.eps is None else row.eps,
            measure=measures[-1].name,
            better=measures[-1].better,
            notes=tuple(dict.fromkeys(each.note for each in measures if each.note)),
            run=run,
            trained=trained,
        )


def _setting(run: Run, row: RowAttack) -> Hashable:
    """Equal for measures of one kind that are of the same images under the same attack."""
    settings = run.settings
    images = settings.data_name, settings.test_sha256, run.n
    if not row.params:
        return images
    return *images, settings.threat.norm, row.eps, records.same_but_seed(row.params)


def _joined(measures: Sequence[Measure]) -> Cell | WithheldNumber:
    """Return one measure of several seeds, or what stands for it where it means nothing."""
    name, seeds = measures[-1].name, len(measures)
    values = tuple(each.value for each in measures if each.value is not None)
    if len(values) < seeds:
        return WithheldNumber(name=name, seeds=seeds, trust=NumberTrust(trust="withheld"))
    # What is divided by the number of examples in an accuracy is a mean here already.
    return Cell(name=name, seeds=seeds, correct=values, n=1)
