"""Checks of a record's content, beyond its form, so that tables can be made of it.

A damaged record is found when it is read: its file is named, and tables of other runs are made
without it.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING

from robustbench_cli.runs.retrieval_rows import row_attacks
from robustbench_cli.runs.settings import DamagedRecord

if TYPE_CHECKING:
    from robustbench_cli.runs.records import Run


def check_record(run: "Run") -> None:
    """Raise ``DamagedRecord``, which names the run, if its record contradicts itself."""
    _ = run.settings  # every section that is there has the right shape
    for what in _wrong(run):
        raise DamagedRecord(f"run {run.id!r}", what)


def check_complete(run: "Run") -> None:
    """Raise ``DamagedRecord``, which names the run, if it is finished and a table lacks something.

    A run that is not finished may lack what it would have measured.  ``records.read`` has checked
    the rest.
    """
    if run.status == "ok" and (check := _COMPLETE.get(run.kind)):
        check(run)


def _wrong(run: "Run") -> Iterator[str]:
    """Yield the contradictions that no kind of run may have."""
    shares = {"clean_accuracy": run.clean_accuracy, "worst_case_accuracy": run.worst_case_accuracy}
    shares |= {"worst_case_least": run.worst_case_least}
    shares |= {f"attacks.{label}": each.robust_accuracy for label, each in run.attacks.items()}
    shares |= {f"attacks.{label} at least": each.least for label, each in run.attacks.items()}
    rates = {f"targeted.{label}": each.success_rate for label, each in run.targeted.items()}
    shares |= rates
    shares |= {f"domains.{each.name}": each.robust_accuracy for each in run.domains}
    shares |= {f"detections.{each.detector}": each.auroc for each in run.detections}
    for each in run.detections:
        for point in each.points:
            name = f"detections.{each.detector} at {point.fpr:g}"
            shares |= {f"{name} {k}": v for k, v in vars(point).items()}
    if run.widened:
        ends = {"clean": run.widened.clean, **run.widened.attacks, "worst": run.widened.worst}
        for label, pair in ends.items():
            shares |= {f"widened.{label} {at}": end for at, end in enumerate(pair or ())}
    for name, share in shares.items():
        if share is not None and not 0 <= share <= 1:
            yield f"{name}: {share} is no accuracy between 0 and 1"
    counts = {f"attacks.{label}": (each.correct, each.n) for label, each in run.attacks.items()}
    counts |= {f"targeted.{label}": (each.reached, each.n) for label, each in run.targeted.items()}
    for label, proof in run.certificates.items():
        counts[f"certificates.{label}"] = proof.correct, proof.n
        for ball in proof.within:
            counts[f"certificates.{label} within {ball.eps}"] = ball.correct, proof.n
    for name, (correct, n) in counts.items():
        if not 0 <= correct <= n:
            yield f"{name}: {correct} right answers among {n} examples"
    free = {"config": run.config, "dataset": run.dataset, "environment": run.environment}
    free |= {f"attacks.{label}": each.params for label, each in run.attacks.items()}
    free |= {f"targeted.{label}": each.params for label, each in run.targeted.items()}
    free |= {f"certificates.{label}": each.params for label, each in run.certificates.items()}
    for measure in run.measures:
        if measure.unit == "%" and measure.value is not None and not 0 <= measure.value <= 1:
            yield f"measures.{measure.of} {measure.name}: {measure.value} is no share"
    for where, value in free.items():
        yield from _wrong_inside(value, where)
    if not 1970 <= run.created.year <= 9000:  # a local time must exist
        yield f"created: {run.created.year} is no year of a run"
    named = [each.file for each in (run.checkpoint, run.last, run.evaluated) if each]
    tables = run.examples, run.fitted, run.scores, run.samples
    named += [table.get("file", "") for table in tables]
    for file in filter(None, named):
        if PurePath(file).name != file:
            yield f"{file!r} is no file of the run's own folder"


def _wrong_inside(value: object, where: str) -> Iterator[str]:
    """Yield what no free-form field may hold: names that are no text, numbers that are infinite."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            if key == "name" and not isinstance(each, str | None):
                yield f"{where}.name: {each!r} is no name"
            yield from _wrong_inside(each, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from _wrong_inside(each, f"{where}.{index}")
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{where}: {value} is no finite number"


def _evaluated(run: "Run") -> None:
    """An evaluation has a threat, a model, data and accuracies."""
    _compared(run)
    _ = run.settings.model_name
    if run.clean_accuracy is None or run.worst_case_accuracy is None or not run.n:
        raise DamagedRecord(f"run {run.id!r}", "it is finished, but has no accuracies")
    for label, outcome in run.attacks.items():
        if outcome.n != run.n:
            what = f"attacks.{label}: {outcome.n} examples in an evaluation of {run.n}"
            raise DamagedRecord(f"run {run.id!r}", what)
        value = outcome.params.get(run.settings.swept) if outcome.eps is None else None
        if not isinstance(value, int | float | None):
            raise DamagedRecord(f"run {run.id!r}", f"attacks.{label}: {value!r} is no number")


def _joint(run: "Run") -> None:
    """A joint attack has a threat, data, one attack, and a domain for each model and view."""
    _compared(run)
    if run.worst_case_accuracy is None or not run.n or len(run.attacks) != 1:
        raise DamagedRecord(f"run {run.id!r}", "it is finished, but has no accuracies")
    for outcome in run.attacks.values():
        if "name" not in outcome.params:
            raise DamagedRecord(f"run {run.id!r}", "its record has no 'name' of the attack")
    if not run.domains or not run.settings.runs:
        raise DamagedRecord(f"run {run.id!r}", "its record has no 'domains'")


def _detection(run: "Run") -> None:
    """Each detection names an attack that the record holds; a fit names its detector."""
    if run.fitted and not run.detections and not run.settings.detector:
        raise DamagedRecord(f"run {run.id!r}", "its record has no 'detector'")
    if run.detections:
        _compared(run)
    for each in run.detections:
        if each.attack not in run.attacks:
            raise DamagedRecord(f"run {run.id!r}", f"its record has no {each.attack!r}")


def _generator(run: "Run") -> None:
    """A generator's record names it."""
    if len(run.settings.generator) != 1:
        raise DamagedRecord(f"run {run.id!r}", "its record has no 'generator'")


def _retrieval(run: "Run") -> None:
    """A retrieval has a threat, data, a number of queries, and the attack of each of its rows."""
    _compared(run)
    if not run.n:
        raise DamagedRecord(f"run {run.id!r}", "it is finished, but has no number of queries")
    known = row_attacks(run)
    for measure in run.measures:
        if measure.of not in known:
            raise DamagedRecord(f"run {run.id!r}", f"its record has no attack {measure.of!r}")


def _compared(run: "Run") -> None:
    _ = run.settings.threat, run.settings.data_name, run.settings.test_sha256


_COMPLETE: Mapping[str, Callable[["Run"], None]] = {
    "eval": _evaluated,
    "joint": _joint,
    "detect": _detection,
    "synth": _generator,
    "retrieve": _retrieval,
}
"""The check of a finished run, by its kind."""
