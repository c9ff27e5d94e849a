"""Tables of evaluations: which belong in one row, and what its columns hold.

No torch, and nothing that decides a verdict: records hold them, this joins and compares.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from robustbench_cli.report import seed_groups
from robustbench_cli.report.columns import (
    CLEAN,
    DIFF,
    LAST,
    MINUTES,
    WORST,
    TableColumn,
    columns,
    is_last_epoch,
    is_plain,
)
from robustbench_cli.report.example_files import ExampleFiles
from robustbench_cli.report.model_names import has_own_model, short_model_names
from robustbench_cli.report.number_trust import before_checks
from robustbench_cli.report.origins import gain_origin
from robustbench_cli.report.row_facts import data_fact, own_model, renamed, row_facts, training_data
from robustbench_cli.report.row_names import RowDetails, data_key, data_names, told_apart
from robustbench_cli.report.row_numbers import row_numbers, trust_of_seeds
from robustbench_cli.report.statistics import Cell, Distance, Fact, LastEpochGain, Measurement
from robustbench_cli.report.target_share import TargetShare
from robustbench_cli.report.training_minutes import training_minutes
from robustbench_cli.report.withheld import WithheldNumber
from robustbench_cli.runs.damage import check_complete
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
    before_checks: int = 0
    """The evaluations among ``runs`` that are from before there were checks."""

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
    side: Mapping[str, str] | None = None,
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
        side: by an evaluation's id; those of different sides share no row.
    """
    files = files or ExampleFiles()
    trained = seed_groups.trained(runs)
    wanted = [run for run in finished(runs) if keep(run)]
    short = short_model_names(run.subject for run in wanted if has_own_model(run))
    done = [
        seed_groups.described_as(run, trained[run.parent].subject)
        if run.parent in trained
        else seed_groups.described_as(run, short.get(run.subject, run.subject))
        for run in wanted
    ]
    groups: dict[Hashable, list[Run]] = defaultdict(list)
    for run in done:
        groups[_identity(run, trained), (side or {}).get(run.id)].append(run)
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
    # The labels of input defenses stand in the name; what they were by default may have changed.
    front = json.dumps(run.settings.defend, sort_keys=True)
    return (
        made,
        front,
        comparison_key(run),
        *(fact.text for fact in row_facts(run, seeds=1).values()),
    )


def comparison_key(run: Run) -> Hashable:
    """Equal for evaluations whose numbers can be compared.

    Where images may be rejected, other things count as right, and what a detector catches depends
    on how many clean images it may flag.
    """
    settings = run.settings
    threat = settings.threat
    limited = threat.norm, threat.eps, threat.mask
    rejects = run.rejection.label if run.rejection else ""
    return settings.data_name, settings.test_sha256, *limited, run.n, rejects


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
    found = row_numbers(used, named, trained, files)
    last = used[-1]
    parent = trained.get(last.parent or "")
    config = seed_groups.as_evaluated(last, parent).config if parent else own_model(last)

    def cell(name: str, **about: Any) -> Measurement | None:
        of_seeds = found.get(name, {})
        known = [of_seeds[seed] for seed in kept if seed in of_seeds]
        if not known:
            return None
        trust = trust_of_seeds(known, last.n or 1)
        about = {"name": name, "seeds": len(kept), "trust": trust, **about}
        about["origins"] = tuple(each.origin for each in known if each.origin)
        if trust and trust.withheld:
            return WithheldNumber(spaced=name not in distances, **about)
        numbers = tuple(each.number for each in known)
        if name in distances:
            return Distance(distances=numbers, **about)
        if name in targets:
            return TargetShare(shares=numbers, of=tuple(each.of for each in known), **about)
        # That of several seeds together knows nothing of looks: it is shown where it is asked for.
        over_looks = known[0].interval if len(known) == 1 else None
        return Cell(
            correct=numbers,
            n=last.n or 0,
            intervals=intervals or over_looks is not None,
            over_looks=over_looks,
            **about,
        )

    def gained(name: str) -> Measurement | None:
        after, before = found.get(name + LAST, {}), found.get(name, {})
        seeds = [seed for seed in kept if seed in after and seed in before]
        if not seeds:
            return None
        pairs = [(after[seed], before[seed]) for seed in seeds]
        trust = trust_of_seeds([one for pair in pairs for one in pair], last.n or 1)
        about: dict[str, Any] = {"name": name + DIFF, "seeds": len(kept)}
        about["trust"] = trust and replace(trust, found=None)
        if trust and trust.withheld:
            return WithheldNumber(**about)
        return LastEpochGain(
            points=tuple((a.number - b.number) / (last.n or 1) for a, b in pairs),
            origins=tuple(
                gain_origin(a.origin, b.origin) for a, b in pairs if a.origin and b.origin
            ),
            **about,
        )

    def both(
        name: str, attack: str = "", at: tuple[str, float] | None = None
    ) -> dict[str, Measurement | None]:
        shown = {name: cell(name, attack=attack, at=at)}
        if compared:
            shown[name + LAST] = cell(name + LAST, attack=attack + LAST, at=at)
            shown[name + DIFF] = gained(name)
        return shown

    taught = [trained[parent] for parent in kept.values() if parent in trained]
    distances = {column.distance for column in named.values()}
    targets = {column.name for column in named.values() if column.reached}
    cells = both(CLEAN)
    for column in named.values():
        if column.reached:
            cells[column.name] = cell(column.name)
            continue
        cells |= both(column.name, attack=column.attack, at=column.at)
        cells |= {column.distance: cell(column.distance)} if column.distance else {}
    return TableRow(
        facts=row_facts(last, seeds=len(kept)),
        cells={**cells, WORST: cell(WORST), MINUTES: training_minutes(taught, len(kept))},
        setting=comparison_key(last),
        config={key: value for key, value in config.items() if key != "seed"},
        data=training_data(parent) if parent else {},
        seeds=tuple(kept),
        runs=tuple(run.id for run in used),
        oracle=bool(parent and parent.checkpoint and parent.checkpoint.rule == "oracle"),
        retrained=sum(len(born) - 1 for born in made.values()),
        before_checks=sum(map(before_checks, used)),
    )
