"""Tables of evaluations: which belong in one row, and what its columns hold.

No torch, and nothing that decides a verdict: records hold them, this joins and compares.
"""

import json
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import sqrt
from statistics import NormalDist, stdev
from typing import Any

from robustbench_cli import records
from robustbench_cli.catalogue import typed
from robustbench_cli.errors import UserError
from robustbench_cli.records import Run
from robustbench_cli.registry import radius

CLEAN, WORST = "clean", "worst"
_Z = NormalDist().inv_cdf(0.975)
_TAKEN = ("defense", "dataset", "model", "eps", "n", "seeds", CLEAN, WORST)
_TOLD = 3  # differences that tell a name apart; more would fill the line
_key = partial(json.dumps, sort_keys=True)


def wilson(correct: int, n: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson, 1927)."""
    share, weight = correct / n, _Z**2 / n
    half = _Z * sqrt(share * (1 - share) / n + weight / (4 * n))
    low, high = ((share + weight / 2 + side * half) / (1 + weight) for side in (-1, 1))
    # Rounding must not move the ends where nothing or everything is right.
    return (low if correct else 0.0), (high if correct < n else 1.0)


@dataclass(frozen=True)
class Fact:
    """What a row is in one respect, for people, for programs and for sorting."""

    text: str
    raw: Mapping[str, Any]
    rank: Any


@dataclass(frozen=True)
class Cell:
    """An accuracy of a row: right answers among ``n`` examples, once per seed."""

    name: str
    correct: tuple[int, ...]
    n: int
    seeds: int
    """How many the row has; some may lack this accuracy."""
    intervals: bool = False
    """Whether it is written with its confidence interval."""

    @property
    def mean(self) -> float:
        """The share that is right, averaged over seeds."""
        return sum(self.correct) / (self.n * len(self.correct))

    @property
    def std(self) -> float | None:
        """The sample standard deviation over seeds; None for a single one."""
        shares = [right / self.n for right in self.correct]
        return stdev(shares) if len(shares) > 1 else None

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's interval, the examples of all seeds pooled."""
        return wilson(sum(self.correct), self.n * len(self.correct))

    @property
    def partial(self) -> bool:
        """Whether some seeds of the row lack it."""
        return len(self.correct) < self.seeds

    @property
    def text(self) -> str:
        """Per cent, as papers write it."""
        low, high = self.interval
        spread = "" if self.std is None else f" ± {100 * self.std:.2f}"
        ends = f" [{100 * low:.1f}, {100 * high:.1f}]"
        some = f" ({len(self.correct)}/{self.seeds})" if self.partial else ""
        return f"{100 * self.mean:.2f}{ends if self.intervals else spread}{some}"

    @property
    def raw(self) -> Mapping[str, Any]:
        """Shares in full precision, one column for each number."""
        low, high = self.interval
        ends = {f"{self.name}_low": low, f"{self.name}_high": high} if self.intervals else {}
        return {self.name: self.mean, f"{self.name}_std": self.std, **ends}

    @property
    def rank(self) -> float:
        """The best comes first."""
        return -self.mean


@dataclass(frozen=True, kw_only=True)
class Row:
    """Evaluations of one model, or of one training configuration under several seeds."""

    facts: Mapping[str, Fact]
    """defense, dataset, model, eps, n, seeds."""
    cells: Mapping[str, Cell | None]
    """clean, all attacks as they were first written, worst; None: not measured for this row."""
    setting: Hashable
    """Rows are comparable where this is equal."""
    config: Mapping[str, Any]
    """What made the model: every setting but the seed."""
    seeds: tuple[int, ...]
    runs: tuple[str, ...]
    """The evaluations that the numbers are from."""
    oracle: bool
    """Whether the weights were chosen by their accuracy on the test set."""
    retrained: int
    """Training runs left out because a later one has the same configuration and seed."""

    def get(self, column: str) -> Fact | Cell | None:
        """What stands in a column; None where nothing does."""
        return self.facts.get(column) or self.cells.get(column)


def rows(runs: Sequence[Run], *, intervals: bool = False) -> list[Row]:
    """Finished evaluations, those of one training configuration joined over its seeds.

    Evaluations add columns to each other; of a repeated one the latest counts.  Rows are in the
    order of data set, threat and creation.

    Args:
        runs: every record, training runs included, oldest first.
        intervals: write confidence intervals instead of the spread over seeds.
    """
    kinds = {kind: [run for run in runs if run.kind == kind] for kind in ("train", "eval")}
    done = [run for run in kinds["eval"] if run.status == "ok"]
    trained = {run.id: run for run in kinds["train"]}
    groups: dict[Hashable, list[Run]] = defaultdict(list)
    for run in done:
        try:
            groups[_identity(run, trained)].append(run)
        except KeyError as error:
            raise UserError(f"run {run.id!r} is damaged: its record has no {error}") from None
    columns = _columns(done)
    found = [_row(group, trained, columns, intervals) for group in groups.values()]
    order = sorted(found, key=lambda row: (row.facts["dataset"].rank, row.facts["eps"].rank))
    return _told_apart(order)


def _told_apart(found: Sequence[Row]) -> list[Row]:
    """Rows with what differs in the names of models and, if they still look alike, of defenses."""
    models = [(row.facts["model"].text, row.config.get("model", {})) for row in found]
    found = [
        _named(row, "model", _with(name, ",".join(more)))
        for row, (name, _), more in zip(found, models, _odd(models), strict=True)
    ]
    names = [(row.facts["defense"].text, row.facts["model"].text, row.setting) for row in found]
    looks = [(name, dict(_flat(row.config))) for name, row in zip(names, found, strict=True)]
    return [
        _named(row, "defense", f"{row.facts['defense'].text} ({', '.join(more[:_TOLD])})")
        if more
        else row
        for row, more in zip(found, _odd(looks), strict=True)
    ]


def _identity(run: Run, trained: Mapping[str, Run]) -> Hashable:
    """Equal for evaluations that share a row."""
    parent = trained.get(run.parent or "")
    made: Hashable = run.weights
    if parent:
        made = records.same_but_seed(parent.config), parent.dataset.get("train_sha256")
    return made, _setting(run), *(fact.text for fact in _facts(run, seeds=1).values())


def _setting(run: Run) -> Hashable:
    threat, data = run.config["threat"], run.dataset
    return data["name"], data["test_sha256"], threat["norm"], threat["eps"], run.n


def _row(
    group: Sequence[Run], trained: Mapping[str, Run], columns: Mapping[str, str], intervals: bool
) -> Row:
    made: dict[int, dict[str, Any]] = defaultdict(dict)
    for run in group:
        made[run.seed][run.weights] = trained.get(run.parent or "", run).created
    kept = {seed: max(born, key=born.__getitem__) for seed, born in sorted(made.items())}
    used = [run for run in group if run.weights == kept[run.seed]]
    correct: dict[str, dict[int, int]] = defaultdict(dict)
    for run in used:
        seed = run.seed
        correct[CLEAN][seed] = _right(run.clean_accuracy, run)
        for outcome in run.attacks.values():
            correct[columns[_key(outcome.params)]][seed] = outcome.correct
        # Every one is an upper bound of what all their attacks together leave.
        lowest = _right(run.worst_case_accuracy, run)
        correct[WORST][seed] = min(correct[WORST].get(seed, lowest), lowest)
    last = used[-1]
    parent = trained.get(last.parent or "")
    alone = {"model": last.config["model"], "weights": last.weights[:8]}
    config = parent.config if parent else alone
    return Row(
        facts=_facts(last, seeds=len(kept)),
        cells={
            name: Cell(name, found, last.n or 0, len(kept), intervals)
            if (found := tuple(correct[name][seed] for seed in kept if seed in correct[name]))
            else None
            for name in (CLEAN, *columns.values(), WORST)
        },
        setting=_setting(last),
        config={key: value for key, value in config.items() if key != "seed"},
        seeds=tuple(kept),
        runs=tuple(run.id for run in used),
        oracle=bool(parent and parent.checkpoint and parent.checkpoint.rule == "oracle"),
        retrained=sum(len(born) - 1 for born in made.values()),
    )


def _right(accuracy: float | None, run: Run) -> int:
    if accuracy is None or not run.n:
        raise UserError(f"run {run.id!r} is damaged: it is finished, but has no accuracies")
    return round(accuracy * run.n)


def _facts(run: Run, *, seeds: int) -> dict[str, Fact]:
    threat = run.config["threat"]
    names = {
        "defense": run.subject,
        "dataset": records.data_name(run),
        "model": run.config["model"]["name"],
    }
    counts = {"n": run.n or 0, "seeds": seeds}
    norm, eps = threat["norm"], threat["eps"]
    return {
        **{key: Fact(name, {key: name}, name) for key, name in names.items()},
        "eps": Fact(f"{norm} {radius(eps)}", {"norm": norm, "eps": eps}, (norm, eps)),
        **{key: Fact(str(count), {key: count}, -count) for key, count in counts.items()},
    }


def _named(row: Row, fact: str, name: str) -> Row:
    return replace(row, facts={**row.facts, fact: Fact(name, {fact: name}, name)})


def _columns(done: Sequence[Run]) -> dict[str, str]:
    """The column of every attack by its parameters: the label it was first given.

    Where it stands for several attacks it gets what differs; last_iterate is always told.
    """
    found: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for run in done:
        for label, outcome in run.attacks.items():
            silent = outcome.params.get("last_iterate") and "last_iterate" not in label
            shown = _with(label, "last_iterate=true") if silent else label
            found.setdefault(_key(outcome.params), (shown, outcome.params))
    columns: dict[str, str] = {}
    for (key, (label, _)), more in zip(found.items(), _odd(list(found.values())), strict=True):
        name = _with(label, ",".join(more))
        # Whatever a suite calls its attacks: two never share a column.
        while name in (*_TAKEN, *columns.values()):
            name += "'"
        columns[key] = name
    return columns


def _with(label: str, more: str) -> str:
    return f"{label}{',' if ':' in label else ':'}{more}" if more else label


def _odd(things: Sequence[tuple[Hashable, Mapping[str, Any]]]) -> list[list[str]]:
    """For each thing, ``key=value`` for what differs among those of its name."""
    alike: dict[Hashable, list[Mapping[str, Any]]] = defaultdict(list)
    for name, params in things:
        alike[name].append(params)
    return [
        [
            f"{key}={typed(value)}"
            for key, value in params.items()
            if any(other.get(key) != value for other in alike[name])
        ]
        for name, params in things
    ]


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
