"""Facts on a row: what it is about, as text, as data, and as a key for sorting."""

from collections.abc import Mapping
from typing import Any

from robustbench_cli.core.threat_text import format_threat
from robustbench_cli.report.model_names import SAME, has_own_model, short_model_name
from robustbench_cli.report.statistics import Fact
from robustbench_cli.runs import records
from robustbench_cli.runs.records import Run


def row_facts(run: Run, *, seeds: int) -> dict[str, Fact]:
    """Return the facts on an evaluation: defense, dataset, model, eps, n, seeds.

    What rejects images stands beside the radius, input defenses behind the name of the model.  Of a
    model of the user's own the name stands in one column, without what of its path tells nothing
    apart.
    """
    threat = run.settings.threat
    names = {
        "defense": run.subject + run.settings.behind,
        "dataset": records.data_name(run),
        "model": _architecture(run),
    }
    counts = {"n": run.n or 0, "seeds": seeds}
    norm, eps, mask = threat.norm, threat.eps, threat.mask
    rejects = {"rejects": run.rejection.label} if run.rejection else {}
    text = ", ".join([format_threat(**threat.table), *rejects.values()])
    return {
        **{key: Fact(name, {key: name}, name) for key, name in names.items()},
        "eps": Fact(text, threat.table | rejects, (norm, eps, mask, *rejects.values())),
        **{key: Fact(str(count), {key: count}, -count) for key, count in counts.items()},
    }


def _architecture(run: Run) -> str:
    """Return the architecture's name; ``-`` where it is the name of the row, or the end of it."""
    name = run.settings.model_name
    if not has_own_model(run):
        return name
    short = short_model_name(name)
    return SAME if short == short_model_name(run.subject) else short


def data_fact(name: str, plain: str) -> Fact:
    """A data set under a name that tells it apart; it is sorted and found by its own name."""
    return Fact(name, {"dataset": name}, plain)


def renamed(facts: Mapping[str, Fact], names: Mapping[str, str]) -> dict[str, Fact]:
    """Return the facts with these texts; a threat's numbers stay as they are."""
    raws = {key: facts[key].raw if key == "eps" else {key: text} for key, text in names.items()}
    ranks = {key: facts[key].rank if key == "eps" else text for key, text in names.items()}
    return {key: Fact(text, raws[key], ranks[key]) for key, text in names.items()}


def own_model(run: Run) -> dict[str, Any]:
    """Return what is known of an evaluated model that no training run made: its settings, and the
    fingerprints of its weights and, if the user's own code builds it, of that file."""
    weights, _, file = run.weights.partition("+")
    made = {"model": run.settings.model, "weights": weights[:8]}
    return {**made, "file": file[:8]} if file else made


def training_data(run: Run) -> dict[str, str]:
    """Return the fingerprints of the images that a training used, as far as they are known."""
    data = run.settings.data
    found = {"trained on": data.train_sha256, "extra data": data.extra_sha256}
    return {key: sha256[:8] for key, sha256 in found.items() if sha256}
