"""``advbench detect``: detectors fitted on training images, and how well they tell errors."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from robustbench_cli.commands import devices
from robustbench_cli.commands.attack import AdversarialImages
from robustbench_cli.commands.components import component_label
from robustbench_cli.commands.display import Display
from robustbench_cli.commands.eval_request import EvalRequest
from robustbench_cli.commands.evaluate import run_evaluation
from robustbench_cli.commands.finished_evaluation import FinishedEvaluation
from robustbench_cli.commands.fitted_detectors import (
    FittedDetector,
    build_detector,
    fitted_label,
    fitted_on,
    load_detector,
)
from robustbench_cli.commands.load_model import Choice, find_model, kept_beside
from robustbench_cli.commands.run_folder import leaves_nothing
from robustbench_cli.commands.targeted import refuse_targets
from robustbench_cli.commands.workspace import Workspace
from robustbench_cli.config.schema import spec_of
from robustbench_cli.core.errors import UserError
from robustbench_cli.data import DATASETS
from robustbench_cli.detectors import DETECTORS
from robustbench_cli.distributed import env
from robustbench_cli.evaluation.detect import auroc, seen, threshold_at
from robustbench_cli.evaluation.journal import write_arrays
from robustbench_cli.evaluation.model_check import check_model
from robustbench_cli.evaluation.tensors import Tensors
from robustbench_cli.evaluation.verifier import unchanged_model
from robustbench_cli.models.layout import laid_out
from robustbench_cli.report.columns import CLEAN
from robustbench_cli.runs import folders, records
from robustbench_cli.runs.outcomes import Detection, DetectionPoint, Population
from robustbench_cli.runs.recorder import recording
from robustbench_cli.runs.records import Run
from robustbench_cli.training import checkpoint

_FITTED = "detector.safetensors"
SCORES = "scores.npz"
_AT_ONCE = 512
"""Number of images in a forward pass."""
_FALSE_POSITIVES = (0.01, 0.05)
"""The shares of clean images flagged at which robust accuracies are told."""
POPULATIONS: Mapping[Population, tuple[str, ...]] = {
    "adversarial": (),
    "clean+adversarial": (CLEAN,),
}
"""The images that count beside those under attack.  They change the AUROC a lot, so both
populations are reported."""


@dataclass(frozen=True, kw_only=True)
class DetectorFitting:
    """The settings of one ``detect fit``."""

    detector: str
    choice: Choice
    workspace: Workspace
    command: list[str]
    name: str | None = None


def fit_detector(request: DetectorFitting, display: Display) -> Path:
    """Fit a detector on all training images, as they are or as it asks for; return the folder.

    It holds ``detector.safetensors``: tensors only.

    Raises:
        UserError: something asked for cannot be had; no folder is left behind.
    """
    began, workspace = time.perf_counter(), request.workspace
    detector = build_detector(request.detector)
    where = devices.resolve_device(workspace.device)
    subject, base = find_model(request.choice, workspace)
    train = DATASETS.build(spec_of(base["dataset"])).load("train", workspace.data_dir)
    label, kept = component_label(DETECTORS, detector), {}
    if detector.reads_kept:
        kept = kept_beside(request.choice, workspace.out)
    whole = train.to(where)
    data = detector.training_data(whole, kept)
    model = laid_out(subject.model, where)
    check_model(model, whole.images(slice(2)), len(whole.classes))
    with unchanged_model(model):
        known = detector.fit(seen(model, data, _AT_ONCE), data.y.cpu())
    name = base["dataset"]["name"]
    made_up = f"detect-{DETECTORS.name_of(detector)}-{subject.name}"
    fitted = Run(
        id=request.name or folders.new_id(made_up, name, subject.seed),
        kind="detect",
        created=records.now(),
        command=request.command,
        config=records.as_json({**base, "detector": {label: DETECTORS.describe(detector)}}),
        seed=subject.seed,
        parent=subject.parent,
        subject=subject.name,
        dataset={"name": name, "train": len(train), "train_sha256": train.fingerprint()},
        environment=devices.run_environment(where),
        weights=subject.weights,
        evaluated=subject.kept,
        n=len(train),
    )
    folder = folders.new(workspace.out, fitted.id)
    ends = partial(leaves_nothing, resumable=False)
    with recording(fitted, folder, worthless=ends) as recorder:
        checkpoint.save_tensors(folder / _FITTED, known, {"detector": label})
        recorder.update(fitted=records.filed(folder / _FITTED), seconds=time.perf_counter() - began)
    display.note(f"{label}: fitted on {len(train)} training images of {name}")
    return folder


def evaluate_detector(request: EvalRequest, names: Sequence[str], display: Display) -> Path:
    """Attack a model and score its answers; return the folder.

    It holds ``scores.npz``: the classes, and for the clean images and under each attack the
    predictions and what each detector says of them.

    Args:
        names: detectors with their parameters; none: all that were fitted on these weights.

    Raises:
        UserError: something asked for cannot be had, or the model answers clean images with NaN;
            no folder is left behind.
        RunError: a verdict is not possible.
    """
    refuse_targets(request.config, "detectors are measured on errors of any class")
    if env.world() > 1:
        raise UserError("detect eval keeps all images in one process: run it without torchrun")
    subject, out = request.subject, request.workspace.out

    def skip(error: UserError) -> None:
        display.note(f"warning: {error}; left out")

    there = fitted_on(subject.weights, subject.parent, out, skip)
    chosen = [fitted_label(name, there, subject.parent) for name in names] or list(there)
    detectors = [load_detector(there[label]) for label in dict.fromkeys(chosen)]
    images = AdversarialImages()

    def then(judged: FinishedEvaluation) -> None:
        _score(judged, request, images, detectors)

    return run_evaluation(request, display, keep=images.keep, then=then)


def _score(
    judged: FinishedEvaluation,
    request: EvalRequest,
    images: AdversarialImages,
    detectors: list[FittedDetector],
) -> None:
    """Add to the record the AUROC of each detector under each attack."""
    data, model = judged.data, request.subject.model
    attacks = [label for label in judged.columns if label != CLEAN]
    views = {CLEAN: seen(model, data, _AT_ONCE)}
    for attack in attacks:
        found = Tensors(images.under(attack, data).to(data.y.device), data.y)
        views[attack] = seen(model, found, _AT_ONCE)
    labels = data.y.cpu().numpy()
    arrays = {"label": labels}
    for under, view in views.items():
        arrays[f"{under}/prediction"] = view.prediction.numpy()
        for each in detectors:
            arrays[f"{under}/{each.label}"] = each.detector.suspicion(view, each.known).numpy()
    judged.recorder.update(
        detections=[
            _detection(each, attack, population, arrays)
            for attack in attacks
            for each in detectors
            for population in POPULATIONS
        ],
        scores=records.filed(write_arrays(judged.folder / SCORES, arrays)),
    )


def _detection(
    each: FittedDetector, attack: str, population: Population, arrays: Mapping[str, np.ndarray]
) -> Detection:
    parts = (*POPULATIONS[population], attack)
    wrong = np.concatenate([arrays[f"{part}/prediction"] != arrays["label"] for part in parts])
    suspicion = np.concatenate([arrays[f"{part}/{each.label}"] for part in parts])
    points = []
    if CLEAN in parts:
        points = [_point(each.label, attack, fpr, arrays) for fpr in _FALSE_POSITIVES]
    return Detection(
        detector=each.label,
        params=DETECTORS.describe(each.detector),
        fitted=each.sha256,
        attack=attack,
        population=population,
        wrong=int(wrong.sum()),
        right=int((~wrong).sum()),
        auroc=auroc(suspicion, wrong),
        points=points,
    )


def _point(label: str, attack: str, fpr: float, arrays: Mapping[str, np.ndarray]) -> DetectionPoint:
    """The detector of this label, with its threshold where clean images are flagged at a rate."""
    threshold, count = threshold_at(arrays[f"{CLEAN}/{label}"], fpr)
    errors = arrays[f"{attack}/prediction"] != arrays["label"]
    flagged = arrays[f"{attack}/{label}"] > threshold
    right = arrays[f"{CLEAN}/prediction"] == arrays["label"]
    right &= arrays[f"{CLEAN}/{label}"] <= threshold
    return DetectionPoint(
        fpr=fpr,
        flagged=count / len(right),
        clean_accuracy=float(right.mean()),
        detected=float(flagged[errors].mean()) if errors.any() else None,
        robust_accuracy=float((right & (flagged | ~errors)).mean()),
    )
