"""Training runs that differ in their seeds only, and the keys by which they are joined."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from robustbench_cli.report.columns import join_label
from robustbench_cli.runs import records
from robustbench_cli.runs.damage import check_complete
from robustbench_cli.runs.records import Kind, Run

_RECIPE = "recipe"
"""Stands in a configuration where another run's work was named."""


def of_kind(runs: Sequence[Run], kind: Kind) -> list[Run]:
    """The runs of one kind."""
    return [run for run in runs if run.kind == kind]


def by_weights(runs: Iterable[Run]) -> dict[str, Run]:
    """Training runs by the fingerprint of their weights, by which other records name them."""
    return {run.checkpoint.sha256: run for run in runs if run.checkpoint}


def trained(runs: Sequence[Run]) -> dict[str, Run]:
    """The training runs by id; what they build on counts by how it was made, whatever its seed."""
    every = of_kind(runs, "train")
    drawn = {
        sha256: run for run in of_kind(runs, "synth") if (sha256 := run.settings.data.extra_sha256)
    }
    known = by_weights(every) | drawn
    return {run.id: described_as(run, display_name(run), _made(run, known)) for run in every}


def described_as(run: Run, subject: str, config: dict[str, Any] | None = None) -> Run:
    """The run under another subject or with another configuration; itself where both are its own.

    A run keeps its typed settings, which a copy would have to read again.
    """
    config = run.config if config is None else config
    own = subject == run.subject and config is run.config
    return run if own else replace(run, subject=subject, config=config)


def display_name(run: Run) -> str:
    """Return a run's name in tables: its subject, with the variant (the paper's or the code's).

    What stands in front of the model while it is evaluated follows: ``trades behind lgs``.
    """
    parts, tables = run.subject.split("+"), [*run.settings.defense.values()]
    if len(parts) != len(tables):
        return run.subject + run.settings.behind
    named = "+".join(
        join_label(part, f"variant={table['variant']}")
        if "variant" in table and "variant=" not in part
        else part
        for part, table in zip(parts, tables, strict=True)
    )
    return named + run.settings.behind


def group_key(run: Run) -> Hashable:
    """Equal for runs of ``trained`` that differ in their seeds only."""
    generated = _RECIPE in run.settings.extra
    extra = None if generated else run.settings.data.extra_sha256
    return records.same_but_seed(run.config), run.settings.data.train_sha256, extra


def as_evaluated(run: Run, parent: Run) -> Run:
    """Return the training run of an evaluation, with the parameters that the evaluation changed."""
    asked = run.settings.defense
    tables = {
        label: {key: asked.get(label, {}).get(key, value) for key, value in table.items()}
        for label, table in parent.settings.defense.items()
    }
    if tables == parent.settings.defense:
        return parent
    return replace(parent, config={**parent.config, "defense": tables})


def done_on_trained(runs: Sequence[Run], kind: Kind) -> Iterator[tuple[Run, Run, Run]]:
    """Yield the finished runs of a kind on models that were trained here, oldest first.

    With each come its training run, where what that builds on counts by how it was made (see
    ``trained``), and the training run as it is recorded; both as evaluated.

    Args:
        runs: every record, training runs included, oldest first.

    Raises:
        DamagedRecord: a record is damaged.
    """
    own = {run.id: run for run in of_kind(runs, "train")}
    weights = by_weights(trained(runs).values())
    for run in of_kind(runs, kind):
        parent = weights.get(run.weights)
        if parent is not None and run.status == "ok":
            check_complete(run)
            yield run, as_evaluated(run, parent), as_evaluated(run, own[parent.id])


def unlike(runs: Sequence[Run]) -> set[str]:
    """Runs of one name, or of one attack, whose records do not hold the same settings.

    A setting that a later version brought is missing from records written before: such runs can be
    compared once their defaults are filled in.
    """
    alike: dict[Hashable, list[tuple[str, frozenset[str]]]] = defaultdict(list)
    for run in of_kind(runs, "train"):
        settings = run.settings
        tables = settings.stated_model, settings.stated_dataset, settings.optimizer
        names = [(table or {}).get("name") for table in (*tables, settings.schedule)]
        own = {part: held for part, held in run.config.items() if part not in ("parents", "extra")}
        alike[run.subject, *names].append((run.id, frozenset(name for name, _ in flat(own))))
    for run in of_kind(runs, "eval"):
        for outcome in run.attacks.values():
            alike[outcome.params.get("name")].append((run.id, frozenset(outcome.params)))
    several = [known for known in alike.values() if len({keys for _, keys in known}) > 1]
    return {id_ for known in several for id_, _ in known}


def flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """``a.b``, value: the entries of nested tables."""
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _made(
    run: Run, known: Mapping[str, Run], above: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """A configuration in which other runs' work is replaced by how it was made.

    Args:
        known: runs by their weights, those of generators by the fingerprint of their images.
        above: ids of the runs that build on this one; none of them is followed again, so records
            that name each other as parents end here.
    """
    above |= {run.id}

    def recipe(other: Run) -> dict[str, str]:
        made = {} if other.id in above else _made(other, known, above)
        return {"run": display_name(other), _RECIPE: records.same_but_seed(made)[:8]}

    parents: dict[str, Any] = dict(run.config.get("parents", {}))
    for role, given in run.settings.parents.items():
        if parent := known.get(given.weights):
            parents[role] = recipe(parent)
    made = {**run.config, "parents": parents} if parents else run.config
    drawn = known.get(run.settings.data.extra_sha256 or "") if made.get("extra") else None
    return {**made, "extra": recipe(drawn)} if drawn else made
