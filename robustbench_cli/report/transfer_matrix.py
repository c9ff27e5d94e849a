"""Transfer attacks as a matrix: images crafted on one model, tried on another."""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robustbench_cli.core.threat_text import format_threat
from robustbench_cli.report import seed_groups
from robustbench_cli.report.columns import CLEAN, distinguishing_params, key_of, labels
from robustbench_cli.report.number_trust import attack_trust, before_checks, clean_trust
from robustbench_cli.report.robustness_table import comparison_key, finished
from robustbench_cli.report.row_names import data_key, data_names
from robustbench_cli.report.row_numbers import count, right
from robustbench_cli.report.statistics import Cell
from robustbench_cli.report.withheld import WithheldNumber, cell_of_one
from robustbench_cli.runs import records
from robustbench_cli.runs.outcomes import Outcome
from robustbench_cli.runs.records import Run


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """One attack under one threat: a model's accuracy on images made for each other one."""

    attack: str
    about: Mapping[str, Any]
    """dataset, own_dataset (its name without what tells it apart), norm, eps, perhaps mask and what
    rejects images, n."""
    names: Mapping[str, str]
    """Names of the models by the sha256 of their weights, in the order in which they were made."""
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    cells: Mapping[tuple[str, str], Cell | WithheldNumber]
    """By source and target; the white-box evaluation where both are one."""
    clean: Mapping[str, Cell | WithheldNumber]
    """By target."""
    runs: Mapping[tuple[str, str], str]
    """The evaluation that each number is from."""
    before_checks: int = 0
    """The evaluations among them that are from before there were checks."""

    @property
    def title(self) -> str:
        """The setting that all numbers share, in words."""
        about = self.about
        threat = format_threat(about["norm"], about["eps"], about.get("mask", ""))
        rejects = f", {about['rejects']}" if "rejects" in about else ""
        return f"{self.attack}: {about['dataset']}, {threat}{rejects}, n {about['n']}"


def transfer_matrices(runs: Sequence[Run], *, intervals: bool = False) -> list[Matrix]:
    """One for each attack and setting under which images were transferred.

    Of a repeated evaluation the latest counts; seeds are models of their own.  Images are crafted
    on models as they were trained, so evaluations that set parameters of a defense are left out.

    Args:
        runs: every record, training runs included, oldest first.
        intervals: write confidence intervals.
    """
    trained = {run.id: run for run in seed_groups.of_kind(runs, "train")}
    done = [run for run in finished(runs) if not run.settings.swept and _as_trained(run, trained)]
    involved = {w for run in done if run.settings.source for w in (_made_on(run), run.weights)}
    names = _names(runs, involved)
    groups: dict[Hashable, list[tuple[Run, str, Outcome]]] = defaultdict(list)
    for run in done:
        for label, outcome in run.attacks.items():
            # A model's own images and another's are of one attack here.
            groups[comparison_key(run), key_of(run, outcome, apart=False)].append(
                (run, label, outcome)
            )
    moved = {
        key: seen for key, seen in groups.items() if any(run.settings.source for run, _, _ in seen)
    }
    datasets = data_names([run for seen in moved.values() for run, _, _ in seen])
    called = labels([seen[0] for seen in moved.values()])
    found = [
        _matrix(attack, seen, names, datasets[data_key(seen[0][0])], intervals)
        for attack, seen in zip(called, moved.values(), strict=True)
    ]
    return sorted(found, key=lambda m: (m.about["dataset"], m.about["norm"], m.about["eps"]))


def _matrix(
    attack: str,
    seen: Sequence[tuple[Run, str, Outcome]],
    names: Mapping[str, str],
    dataset: str,
    intervals: bool,
) -> Matrix:
    involved = {
        w for run, _, _ in seen if run.settings.source for w in (_made_on(run), run.weights)
    }
    cells, clean, used, old = {}, {}, {}, 0
    for run, label, outcome in seen:
        pair, n = (_made_on(run), run.weights), run.n or 0
        if not involved.issuperset(pair):
            continue
        trust = attack_trust(run, label)
        cells[pair] = cell_of_one(label, right(outcome), n, trust, intervals=intervals)
        clean[run.weights] = cell_of_one(
            CLEAN, count(run.clean_accuracy, n), n, clean_trust(run), intervals=intervals
        )
        used[pair] = run.id
        old += before_checks(run)
    first = seen[0][0]
    return Matrix(
        attack=attack,
        about={
            "dataset": dataset,
            "own_dataset": records.data_name(first),
            **first.settings.threat.table,
            **({"rejects": first.rejection.label} if first.rejection else {}),
            "n": first.n,
        },
        names=names,
        sources=tuple(model for model in names if any(model == made_on for made_on, _ in cells)),
        targets=tuple(model for model in names if model in clean),
        cells=cells,
        clean=clean,
        runs=used,
        before_checks=old,
    )


def _as_trained(run: Run, trained: Mapping[str, Run]) -> bool:
    parent = trained.get(run.parent or "")
    return parent is None or seed_groups.as_evaluated(run, parent) == parent


def _made_on(run: Run) -> str:
    return run.settings.source.weights or run.weights


def _names(runs: Sequence[Run], involved: set[str]) -> dict[str, str]:
    """Models by their weights: the subject and, where several share it, what differs."""
    models: dict[str, tuple[str, dict[str, Any]]] = {}
    for run in runs:
        kept = run.checkpoint.sha256 if run.checkpoint else run.weights
        about = {"seed": run.seed, "run": run.id} if run.checkpoint else {"weights": kept[:8]}
        if kept in involved:
            models.setdefault(kept, (seed_groups.display_name(run), about))
    for run in runs:  # the training run may have been left elsewhere
        if (made_on := _made_on(run)) in involved:
            models.setdefault(made_on, (run.settings.source.id, {"weights": made_on[:8]}))
    return dict(zip(models, _told_apart(list(models.values())), strict=True))


def _told_apart(models: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """By the seed if that is enough, else by the run."""
    more = distinguishing_params(models)
    short = [
        f"{name} ({some[0]})" if some else name
        for (name, _), some in zip(models, more, strict=True)
    ]
    return [
        f"{name} ({', '.join(some[-1:])})" if some and short.count(brief) > 1 else brief
        for (name, _), some, brief in zip(models, more, short, strict=True)
    ]
