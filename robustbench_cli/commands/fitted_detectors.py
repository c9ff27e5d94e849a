"""Detectors that were fitted before, from their folders."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from robustbench_cli.commands.components import component_label
from robustbench_cli.config.schema import spec_of
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Spec
from robustbench_cli.detectors import DETECTORS, Detector
from robustbench_cli.runs import folders, records
from robustbench_cli.runs.folders import Skip
from robustbench_cli.runs.records import Run
from robustbench_cli.training import checkpoint


@dataclass(frozen=True)
class FittedDetector:
    """A detector, and the tensors that it was fitted to, on the CPU."""

    label: str
    detector: Detector
    known: Mapping[str, Tensor]
    sha256: str
    """Of the file with the tensors."""


def build_detector(text: str) -> Detector:
    """Return the detector that is written as ``gaussian:score=posterior``.

    Raises:
        UserError: the name or a parameter is wrong.
    """
    return DETECTORS.build(Spec.parse(text))


def fitted_on(weights: str, parent: str | None, results: Path, skip: Skip) -> dict[str, Path]:
    """Return the folder of the latest fit of every detector on these weights, by label.

    Args:
        weights: sha256 of the model's weights.
        parent: the training run that they are of, for the message.
        skip: is told of a damaged record, which is then left out.

    Raises:
        UserError: there is none.
    """
    there = {
        next(iter(each.settings.detector)): folder
        for folder, each in folders.found(results, skip)
        if _is_fit(each) and each.status == "ok" and each.weights == weights
    }
    if not there:
        raise UserError(
            f"no detector in {str(results)!r} is fitted on {parent}; fit one first: "
            f"advbench detect fit gaussian --run {parent}"
        )
    return there


def fitted_label(text: str, there: Mapping[str, object], parent: str | None) -> str:
    """Return a detector's label among those that are fitted.

    Raises:
        UserError: it is unknown, or not among them.
    """
    label = component_label(DETECTORS, build_detector(text))
    if label not in there:
        raise UserError(
            f"detector {label!r} is not fitted on {parent}, but {', '.join(there)}; fit it "
            f"first: advbench detect fit {label} --run {parent}"
        )
    return label


def load_detector(folder: Path) -> FittedDetector:
    """Load a detector from the folder of its fit.

    Raises:
        UserError: the folder is damaged.
    """
    fitted = records.read(folder)
    label = next(iter(fitted.settings.detector))
    known = checkpoint.load_recorded(folder, fitted.fitted)
    detector = DETECTORS.build(spec_of(fitted.settings.detector[label]))
    return FittedDetector(label, detector, known, fitted.fitted["sha256"])


def find_detector(name: str, results: Path, weights: str) -> FittedDetector:
    """Load the detector that a run of ``detect fit`` fitted on these weights.

    Args:
        name: the run's id, an unambiguous part of it, or its path.
        weights: sha256 of the model's weights.

    Raises:
        UserError: there is no such run, it is not finished, or it is of other weights.
    """
    folder = folders.find_run(name, results, "detect")
    run = records.read(folder)
    if not _is_fit(run) or run.status != "ok":
        raise UserError(
            f"--detector {name}: run {run.id!r} has fitted no detector; it takes a finished run of "
            "advbench detect fit"
        )
    if run.weights != weights:
        raise UserError(
            f"--detector {name}: it is fitted on {run.parent}, not on the weights that are "
            "evaluated; fit one on these first"
        )
    return load_detector(folder)


def _is_fit(run: Run) -> bool:
    return run.kind == "detect" and bool(run.fitted)
