"""Tables of joint attacks: what one perturbation did to several domains at once.

No torch, as in ``report``: seeds of one recipe are joined, the latest of a repeated attack counts.
"""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robustbench_cli.core.threat_text import format_threat
from robustbench_cli.report import seed_groups
from robustbench_cli.report.columns import distinguishing_params, join_label
from robustbench_cli.report.example_files import ExampleFiles
from robustbench_cli.report.origins import JointOrigin
from robustbench_cli.report.robustness_table import comparison_key
from robustbench_cli.report.row_names import data_key, data_names
from robustbench_cli.report.statistics import Cell
from robustbench_cli.runs import records
from robustbench_cli.runs.damage import check_complete
from robustbench_cli.runs.records import Run

ALL = "wrong in all"


@dataclass(frozen=True, kw_only=True)
class JointLine:
    """One attack on the domains of a table."""

    attack: str
    cells: Mapping[str, Cell]
    """The number of examples that are wrong in all domains, then the accuracy in each."""
    runs: tuple[str, ...]
    """The joint attacks that the numbers are from, one per seed."""


@dataclass(frozen=True, kw_only=True)
class JointTable:
    """Attacks on the same domains under the same threat."""

    about: Mapping[str, Any]
    """runs, transforms, images, dataset, own_dataset (its name without what tells it apart), norm,
    eps, n."""
    domains: tuple[str, ...]
    lines: tuple[JointLine, ...]

    @property
    def title(self) -> str:
        """The setting that all numbers share, in words."""
        about = self.about
        of = ", ".join(about["runs"])
        views = f" under {', '.join(about['transforms'])}" if len(about["transforms"]) > 1 else ""
        groups = f", {about['images']} images at a time" if about["images"] > 1 else ""
        threat = format_threat(about["norm"], about["eps"])
        return f"{of}{views}{groups}: {about['dataset']}, {threat}, n {about['n']}"


def done(runs: Sequence[Run]) -> list[Run]:
    """The joint attacks that are finished; raise ``DamagedRecord`` that names a damaged one."""
    finished_runs = [run for run in seed_groups.of_kind(runs, "joint") if run.status == "ok"]
    for run in finished_runs:
        check_complete(run)
    return finished_runs


def tables(
    runs: Sequence[Run], *, intervals: bool = False, files: ExampleFiles | None = None
) -> list[JointTable]:
    """One for each set of domains and each threat, in the order in which they were first attacked.

    Args:
        runs: every record, training runs included, oldest first.
        intervals: write confidence intervals instead of the spread over seeds.
        files: the per-example verdicts, which intervals over several seeds need; None: there are
            none.
    """
    files = files or ExampleFiles()
    known = seed_groups.by_weights(seed_groups.trained(runs).values())
    groups: dict[Hashable, dict[Hashable, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in done(runs):
        models = [(id_, known.get(sha)) for id_, sha in run.settings.runs.items()]
        alike = tuple(seed_groups.group_key(model) if model else id_ for id_, model in models)
        transforms = tuple(seed_groups.flat(run.settings.transform))
        shape = comparison_key(run), alike, transforms, run.settings.images
        groups[shape][records.same_but_seed(run.settings.attack)].append(run)
    datasets = data_names(done(runs))
    return [
        _table([*attacks.values()], known, datasets, intervals, files)
        for attacks in groups.values()
    ]


def _table(
    attacks: Sequence[Sequence[Run]],
    known: Mapping[str, Run],
    datasets: Mapping[tuple[str, str], str],
    intervals: bool,
    files: ExampleFiles,
) -> JointTable:
    first = attacks[0][0]
    settings, names = first.settings, _names(first, known)
    domains = tuple(_renamed(domain.name, names) for domain in first.domains)
    heads = [next(iter(found[0].attacks.items())) for found in attacks]
    differs = distinguishing_params(
        [(str(outcome.params["name"]), outcome.params) for _, outcome in heads]
    )
    lines = []
    for found, (_, outcome), more in zip(attacks, heads, differs, strict=True):
        # Of the same attack on the same weights the latest counts.
        latest = {tuple(run.settings.runs.values()): run for run in found}
        lines.append(
            JointLine(
                attack=join_label(str(outcome.params["name"]), ",".join(more)),
                cells=_cells([*latest.values()], domains, intervals, files),
                runs=tuple(run.id for run in latest.values()),
            )
        )
    return JointTable(
        about={
            "runs": tuple(names.values()),
            "transforms": tuple(settings.transform),
            "images": settings.images,
            "dataset": datasets[data_key(first)],
            "own_dataset": records.data_name(first),
            **settings.threat.table,
            "n": first.n,
        },
        domains=domains,
        lines=tuple(lines),
    )


def _cells(
    runs: Sequence[Run], domains: Sequence[str], intervals: bool, files: ExampleFiles
) -> dict[str, Cell]:
    """The numbers of one attack, one per seed."""
    n = runs[0].n or 0

    def cell(name: str, shares: Sequence[float], domain: int | None) -> Cell:
        counts = tuple(round(share * n) for share in shares)
        origins = tuple(
            JointOrigin(file=files.of(run), right=right, label=next(iter(run.attacks)), at=domain)
            for run, right in zip(runs, counts, strict=True)
        )
        return Cell(
            name=name,
            correct=counts,
            n=n,
            seeds=len(runs),
            intervals=intervals,
            origins=origins,
        )

    fooled = [1 - (run.worst_case_accuracy or 0.0) for run in runs]
    each = [[run.domains[i].robust_accuracy for run in runs] for i in range(len(domains))]
    return {
        ALL: cell(ALL, fooled, None),
        **{
            name: cell(name, shares, i)
            for i, (name, shares) in enumerate(zip(domains, each, strict=True))
        },
    }


def _names(run: Run, known: Mapping[str, Run]) -> dict[str, str]:
    """Return a name for each run: its defense, or its id where several have that defense."""
    found = {
        id_: model.subject if (model := known.get(sha)) else id_
        for id_, sha in run.settings.runs.items()
    }
    alike = [*found.values()]
    return {id_: name if alike.count(name) == 1 else id_ for id_, name in found.items()}


def _renamed(domain: str, names: Mapping[str, str]) -> str:
    """The name of a domain with defenses instead of ids."""
    return " ".join(names.get(word, word) for word in domain.split(" "))
