"""Tables of evaluations: which belong in one row, and what its columns hold.

No torch, and nothing that decides a verdict: records hold them, this joins and compares.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

from robustbench_cli.report import seed_groups
from robustbench_cli.report.columns import (
    CLEAN,
    DIFF,
    LAST,
    WORST,
    TableColumn,
    certified_counts,
    columns,
    is_last_epoch,
    is_plain,
    key_of,
)
from robustbench_cli.report.example_files import ExampleFiles
from robustbench_cli.report.origins import (
    CleanOrigin,
    Origin,
    attack_origin,
    certified_origin,
    gain_origin,
    worst_origin,
)
from robustbench_cli.report.row_facts import data_fact, renamed, row_facts, training_data
from robustbench_cli.report.row_names import RowDetails, data_key, data_names, told_apart
from robustbench_cli.report.statistics import Cell, Distance, Fact, LastEpochGain, Measurement
from robustbench_cli.runs.damage import check_complete
from robustbench_cli.runs.outcomes import Outcome
from robustbench_cli.runs.records import Run


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """Evaluations of one model, or of one training configuration under several seeds."""

    facts: Mapping[str, Fact]
    """defense, dataset, model, eps, n, seeds."""
    cells: Mapping[str, Measurement | None]
    """clean, all attacks as they were first written, each with the distance if it looks for the
    nearest image, worst; None: not measured for this row."""
    setting: Hashable
    """Rows are comparable where this is equal."""
    config: Mapping[str, Any]
    """Every setting of the training but the seed."""
    data: Mapping[str, str]
    """Fingerprints of the data of the training; empty where it is not known."""
    seeds: tuple[int, ...]
    runs: tuple[str, ...]
    """The evaluations that the numbers are from."""
    oracle: bool
    """True if the weights were chosen by their accuracy on the test set."""
    retrained: int
    """Training runs left out because a later one has the same configuration and seed."""

    @property
    def datasets(self) -> tuple[str, str]:
        """The names that the data set goes by: as it is shown, and its own."""
        return self.facts["dataset"].text, self.facts["dataset"].rank

    def get(self, column: str) -> Fact | Measurement | None:
        """Return the fact or the measurement in a column; None where there is none."""
        return self.facts.get(column) or self.cells.get(column)


def rows(
    runs: Sequence[Run],
    *,
    intervals: bool = False,
    keep: Callable[[Run], bool] = is_plain,
    files: ExampleFiles | None = None,
) -> list[TableRow]:
    """Finished evaluations, those of one training configuration joined over its seeds.

    Evaluations add columns to each other; of a repeated one the latest counts.  Rows are in the
    order of data set, threat and creation.

    Args:
        runs: every record, training runs included, oldest first.
        intervals: write confidence intervals instead of the spread over seeds.
        keep: returns True for the evaluations that are wanted.
        files: their per-example verdicts, which are read when a number's interval or place is
            asked for; None: there are none.
    """
    files = files or ExampleFiles()
    trained = seed_groups.trained(runs)
    done = [
        seed_groups.described_as(run, trained[run.parent].subject) if run.parent in trained else run
        for run in finished(runs)
        if keep(run)
    ]
    groups: dict[Hashable, list[Run]] = defaultdict(list)
    for run in done:
        groups[_identity(run, trained)].append(run)
    named, datasets = columns(done, trained), data_names(done)
    compared = any(is_last_epoch(run, trained) for run in done)
    found = [_row(group, trained, named, intervals, compared, files) for group in groups.values()]
    found = [
        replace(
            row,
            facts={
                **row.facts,
                "dataset": data_fact(datasets[data_key(group[0])], row.facts["dataset"].text),
            },
        )
        for row, group in zip(found, groups.values(), strict=True)
    ]
    order = sorted(found, key=lambda row: (row.facts["dataset"].rank, row.facts["eps"].rank))
    return _named_apart(order)


def finished(runs: Sequence[Run]) -> list[Run]:
    """The evaluations that are done; raise ``DamagedRecord`` that names a damaged one."""
    done = [run for run in seed_groups.of_kind(runs, "eval") if run.status == "ok"]
    for run in done:
        check_complete(run)
    return done


def _named_apart(found: Sequence[TableRow]) -> list[TableRow]:
    """Rows with what differs in their facts, so that no two look alike."""
    details = [
        RowDetails(
            defense=row.facts["defense"].text,
            dataset=row.facts["dataset"].text,
            model=row.facts["model"].text,
            model_params=row.config.get("model", {}),
            threat=row.facts["eps"].text,
            norm=row.facts["eps"].raw["norm"],
            eps=row.facts["eps"].raw["eps"],
            mask=row.facts["eps"].raw.get("mask", ""),
            n=row.facts["n"].raw["n"],
            settings=row.config,
            data=row.data,
            run=row.runs[-1],
        )
        for row in found
    ]
    return [
        replace(row, facts={**row.facts, **renamed(row.facts, names)})
        for row, names in zip(found, told_apart(details), strict=True)
    ]


def _identity(run: Run, trained: Mapping[str, Run]) -> Hashable:
    """Equal for evaluations that share a row."""
    parent = trained.get(run.parent or "")
    made: Hashable = run.weights
    if parent:
        made = seed_groups.group_key(seed_groups.as_evaluated(run, parent))
    return made, comparison_key(run), *(fact.text for fact in row_facts(run, seeds=1).values())


def comparison_key(run: Run) -> Hashable:
    """Equal for evaluations whose numbers can be compared."""
    settings = run.settings
    threat = settings.threat
    limited = threat.norm, threat.eps, threat.mask
    return settings.data_name, settings.test_sha256, *limited, run.n


def count(share: float | None, n: int) -> float:
    """Return the number of examples that a recorded share stands for; it need not be whole for a
    randomised model."""
    exact = (share or 0.0) * n
    return round(exact) if abs(exact - round(exact)) < 0.01 else exact


def right(outcome: Outcome) -> float:
    """Return the number of right answers under an attack; the average, for a randomised model."""
    random = outcome.majority_accuracy is not None
    return count(outcome.robust_accuracy, outcome.n) if random else outcome.correct


def _row(
    group: Sequence[Run],
    trained: Mapping[str, Run],
    named: Mapping[str, TableColumn],
    intervals: bool,
    compared: bool,
    files: ExampleFiles,
) -> TableRow:
    """One row.

    Args:
        compared: True if the table has columns for the last epoch's weights, too.
    """
    made: dict[int, dict[str, Any]] = defaultdict(dict)
    current = {}
    for run in group:
        made[run.seed][run.parent or ""] = trained.get(run.parent or "", run).created
        # A run that was evaluated before it was finished has other weights by now.
        current[run.parent, is_last_epoch(run, trained)] = run.weights
    kept = {seed: max(born, key=born.__getitem__) for seed, born in sorted(made.items())}
    used = [
        run
        for run in group
        if (run.parent or "") == kept[run.seed]
        and run.weights == current[run.parent, is_last_epoch(run, trained)]
    ]
    found: dict[str, dict[int, float]] = defaultdict(dict)
    origins: dict[str, dict[int, Origin]] = defaultdict(dict)
    for run in used:
        n, seed, of, file = run.n or 0, run.seed, LAST * is_last_epoch(run, trained), files.of(run)

        def put(name: str, number: float, origin: Origin, seed: int = seed, of: str = of) -> None:
            found[name + of][seed], origins[name + of][seed] = number, origin

        right_on_clean = count(run.clean_accuracy, n)
        put(CLEAN, right_on_clean, CleanOrigin(file=file, right=right_on_clean))
        for label, outcome in run.attacks.items():
            column = named[key_of(run, outcome)]
            put(column.name, right(outcome), attack_origin(run, label, outcome, files))
            if column.distance and not of and (reach := _reach(run, outcome)) is not None:
                found[column.distance][seed] = reach
        for key, sure in certified_counts(run).items():
            put(named[key].name, sure.correct, certified_origin(run, sure, files))
        if is_plain(run) and run.attacks and not of:
            # Every one is an upper bound of what all their attacks together leave.
            lowest = count(run.worst_case_accuracy, n)
            if lowest <= found[WORST].get(seed, lowest):
                put(WORST, lowest, worst_origin(run, files))
    last = used[-1]
    parent = trained.get(last.parent or "")
    alone = {"model": last.settings.model, "weights": last.weights[:8]}
    config = seed_groups.as_evaluated(last, parent).config if parent else alone

    def cell(name: str, **about: Any) -> Measurement | None:
        numbers = tuple(found[name][seed] for seed in kept if seed in found[name])
        known = tuple(origins[name][seed] for seed in kept if seed in origins[name])
        about = {"name": name, "seeds": len(kept), "origins": known, **about}
        if not numbers:
            return None
        if name in distances:
            return Distance(distances=numbers, **about)
        return Cell(correct=numbers, n=last.n or 0, intervals=intervals, **about)

    def gained(name: str) -> Measurement | None:
        after, before = found[name + LAST], found[name]
        seeds = [seed for seed in kept if seed in after and seed in before]
        points = tuple((after[seed] - before[seed]) / (last.n or 1) for seed in seeds)
        if not points:
            return None
        known = tuple(gain_origin(origins[name + LAST][s], origins[name][s]) for s in seeds)
        return LastEpochGain(name=name + DIFF, seeds=len(kept), points=points, origins=known)

    def both(
        name: str, attack: str = "", at: tuple[str, float] | None = None
    ) -> dict[str, Measurement | None]:
        shown = {name: cell(name, attack=attack, at=at)}
        if compared:
            shown[name + LAST] = cell(name + LAST, attack=attack + LAST, at=at)
            shown[name + DIFF] = gained(name)
        return shown

    distances = {column.distance for column in named.values()}
    cells = both(CLEAN)
    for column in named.values():
        cells |= both(column.name, attack=column.attack, at=column.at)
        cells |= {column.distance: cell(column.distance)} if column.distance else {}
    return TableRow(
        facts=row_facts(last, seeds=len(kept)),
        cells={**cells, WORST: cell(WORST)},
        setting=comparison_key(last),
        config={key: value for key, value in config.items() if key != "seed"},
        data=training_data(parent) if parent else {},
        seeds=tuple(kept),
        runs=tuple(run.id for run in used),
        oracle=bool(parent and parent.checkpoint and parent.checkpoint.rule == "oracle"),
        retrained=sum(len(born) - 1 for born in made.values()),
    )


def _reach(run: Run, outcome: Outcome) -> float | None:
    """The median distance of an attack that measures it; infinite if half were not reached."""
    tried = outcome.minimal and run.clean_accuracy
    return inf if outcome.median_norm is None and tried else outcome.median_norm
