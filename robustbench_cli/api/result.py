"""What an evaluation found, as Python sees it."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from robustbench_cli.core.robust_shares import within_radius
from robustbench_cli.evaluation.journal import read_arrays
from robustbench_cli.runs import records
from robustbench_cli.runs.records import Run
from robustbench_cli.runs.trust import Finding, Trust

Verdicts: TypeAlias = Mapping[str, np.ndarray[Any, np.dtype[Any]]]
Flags: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class EvaluationResult:
    """Accuracies, verdicts example by example, and the record that the command line would write.

    Accuracies are shares in [0, 1] of all N examples.  Of a randomised model they are means over
    fresh draws; of any other, ``(clean_correct & ~broken[label]).mean()`` is
    ``robust_accuracy[label]``.

    Checks of the model and of what attacks found say how far each accuracy can be trusted:
    "sound"; "upper bound" (something hides the truth, which is lower); "withheld" (the number means
    nothing: it is NaN here, and so nobody takes it for an accuracy; the verdicts are left as they
    are); "unchecked" (the checks were left out).
    """

    clean_accuracy: float
    """NaN where it is withheld."""
    robust_accuracy: Mapping[str, float]
    """By attack: the share of examples that are right when clean and under the attack; NaN where it
    is withheld."""
    bounds: Mapping[str, tuple[float, float]]
    """By attack of which something was left open: both ends of its robust accuracy;
    ``robust_accuracy`` holds the upper one.  After ``budget`` the lower one counts what was not
    finished as broken; after ``within`` it holds with 95 % confidence.  Else empty."""
    intervals: Mapping[str, tuple[float, float]]
    """After ``widen``, by attack and for ``"clean"``: the interval of the accuracy, with 95 %
    confidence over all looks.  Else empty."""
    worst_case_interval: tuple[float, float] | None
    """The same of the worst case; None without ``widen``, or where it is withheld."""
    worst_case_accuracy: float
    """The share of examples that no attack broke, example by example; NaN where it is withheld.
    Attacks with a target have no part in it."""
    targets_reached: Mapping[str, float]
    """By attack with a target: the share of images that were made into their target class, of those
    that are right and of another class when clean; NaN where it is withheld, or there are none."""
    trust: Mapping[str, Trust]
    """By attack: how far its number can be trusted; of one with a target, an "upper bound" means
    that more targets may be reached."""
    clean_trust: Trust
    worst_case_trust: Trust
    findings: tuple[Finding, ...]
    """What the checks found, and which attacks it concerns."""
    clean_correct: Flags
    """(N,): whether the model is right about the image as it is."""
    broken: Mapping[str, Flags]
    """By attack, (N,): whether it made the model wrong, within the radius, about an image that the
    model is right about when clean."""
    verdicts: Mapping[str, Verdicts]
    """By attack, and for ``"clean"``, arrays (N,): ``prediction`` (a class), ``norm`` (how far the
    image is from the clean one, in the threat's norm), ``step`` (gradient steps before the first
    success, -1: none), ``by`` (the stage that broke it, -1: none), ``forwards`` and ``backwards``
    (passes), ``share`` (how often a randomised model is right); where a budget ran out also
    ``open`` (the image is not finished, or not even classified, and counts as right).  Of an attack
    with a target also ``target``, the class to reach (-1: left out); there ``share`` says how often
    it was missed."""
    labels: np.ndarray[Any, np.dtype[np.int32]]
    """(N,)"""
    index: np.ndarray[Any, np.dtype[np.int32]]
    """(N,): the position of each example among the images that were given."""
    notes: tuple[str, ...]
    """Why the numbers may mislead: a randomised model, gradients that are zero, ..."""
    record: Run
    """All that is known of the evaluation: settings, cost of each attack, software, time."""
    folder: Path | None
    """Where the record is; None: it was not kept."""

    def table(self) -> str:
        """Return the table that ``advbench eval`` prints."""
        from rich.console import Console

        from robustbench_cli.cli.eval_summary import evaluation_table

        plain = Console(file=io.StringIO(), width=10_000, color_system=None, highlight=False)
        return evaluation_table(self.record, plain)

    def __repr__(self) -> str:
        return self.table().rstrip()


def read_result(folder: Path, *, kept: bool = True) -> EvaluationResult:
    """Return what the evaluation in a folder found.

    Args:
        kept: whether the folder stays.

    Raises:
        UserError: the record or its ``examples.npz`` is absent or damaged.
    """
    run, arrays = records.read(folder), read_arrays(folder / "examples.npz")
    verdicts: dict[str, dict[str, np.ndarray[Any, np.dtype[Any]]]] = {}
    for key, values in arrays.items():
        label, slash, field = key.rpartition("/")
        if slash:
            verdicts.setdefault(label, {})[field] = values
    assert run.clean_accuracy is not None
    assert run.worst_case_accuracy is not None
    return EvaluationResult(
        clean_accuracy=_unless_withheld(run.clean_accuracy, run.clean_trust),
        robust_accuracy={
            label: _unless_withheld(found.robust_accuracy, found.trust)
            for label, found in run.attacks.items()
        },
        bounds={
            label: (each.least, each.robust_accuracy)
            for label, each in run.attacks.items()
            if each.least is not None and each.trust != "withheld"
        },
        intervals=_intervals(run),
        worst_case_interval=_worst_interval(run),
        worst_case_accuracy=_unless_withheld(run.worst_case_accuracy, run.worst_case_trust),
        targets_reached={
            label: nan if each.success_rate is None else _unless_withheld(*pair)
            for label, each in run.targeted.items()
            for pair in [(each.success_rate or 0.0, each.trust)]
        },
        trust={
            **{label: found.trust for label, found in run.attacks.items()},
            **{label: found.trust for label, found in run.targeted.items()},
        },
        clean_trust=run.clean_trust,
        worst_case_trust=run.worst_case_trust,
        findings=tuple(run.findings),
        clean_correct=np.asarray(verdicts["clean"]["share"] > 0),
        broken={label: _broken(run, label, verdicts[label]) for label in run.attacks},
        verdicts=verdicts,
        labels=arrays["label"],
        index=arrays["index"],
        notes=tuple(run.notes),
        record=run,
        folder=folder if kept else None,
    )


def _intervals(run: Run) -> dict[str, tuple[float, float]]:
    if run.widened is None:
        return {}
    clean = {} if run.clean_trust == "withheld" else {"clean": run.widened.clean}
    shown = [label for label, each in run.attacks.items() if each.trust != "withheld"]
    return clean | {label: run.widened.attacks[label] for label in shown}


def _worst_interval(run: Run) -> tuple[float, float] | None:
    if run.widened is None or run.worst_case_trust == "withheld":
        return None
    return run.widened.worst_of(list(run.attacks))


def _unless_withheld(accuracy: float, trust: Trust) -> float:
    """Return the accuracy; NaN where it means nothing."""
    return nan if trust == "withheld" else accuracy


def _broken(run: Run, label: str, found: Verdicts) -> Flags:
    """Return which examples an attack broke (N,); a nearest image counts within the radius."""
    outcome, broken = run.attacks[label], np.asarray(found["by"] >= 0)
    eps = run.settings.threat.eps if outcome.eps is None else outcome.eps
    return within_radius(found["norm"], eps) & broken if outcome.minimal else broken
