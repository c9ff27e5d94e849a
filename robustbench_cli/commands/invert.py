"""``advbench invert``: how well an attacker rebuilds images from what a model publishes."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_cli.commands import components, devices
from robustbench_cli.commands.display import Display
from robustbench_cli.commands.eval_request import Subject
from robustbench_cli.commands.inspected_model import find_inspected_model
from robustbench_cli.commands.inversion_attacks import (
    InversionAttack,
    InversionAudit,
    RebuiltImages,
    whole_images,
)
from robustbench_cli.commands.invert_request import PREDICTION, Inversion
from robustbench_cli.commands.run_folder import leaves_nothing, open_run_folder
from robustbench_cli.config.layers import ConfigTable
from robustbench_cli.config.schema import spec_of
from robustbench_cli.core.errors import UserError
from robustbench_cli.data import DATASETS
from robustbench_cli.data.shape import shape_of
from robustbench_cli.distributed import env
from robustbench_cli.evaluation.journal import write_arrays
from robustbench_cli.evaluation.verifier import unchanged_model
from robustbench_cli.explanations import Explanation
from robustbench_cli.inversion.measures import (
    Judges,
    check_similarity_package,
    inversion_measures,
)
from robustbench_cli.inversion.splits import AuditSplits, audit_splits
from robustbench_cli.models import MODELS
from robustbench_cli.runs import folders, records
from robustbench_cli.runs.outcomes import Measure
from robustbench_cli.runs.recorder import recording
from robustbench_cli.runs.records import Run

REBUILT = "reconstructions.npz"
"""The file with the private images and what was rebuilt of them, uint8."""
ORIGINALS, MEAN, CLASS_MEAN = "the images themselves", "mean image", "class mean"
"""The rows that need no network: what the classifiers make of the private images, and baselines."""
SHUFFLED, SURROGATE = ", shuffled", " (surrogate)"
"""What follows a row's name: maps of other images, and maps of a model of the attacker's own."""


def run_inversion(request: Inversion, display: Display) -> Path:
    """Train an attack for each exposure and measure what it rebuilds; return the folder.

    It holds ``reconstructions.npz``.  An unfinished audit of the same weights with the same
    settings goes on where it stopped.

    Raises:
        UserError: something asked for cannot be had; no folder is left behind.
        RunError: a training diverged.
    """
    if env.world() > 1:
        raise UserError("invert works in one process: run it without torchrun")
    check_similarity_package()
    began, workspace = time.perf_counter(), request.workspace
    explanations, where = request.explanations(), devices.resolve_device(workspace.device)
    inspected = find_inspected_model(request.choice, workspace, where)
    subject, base = inspected.subject, inspected.base
    dataset = DATASETS.build(spec_of(base["dataset"]))
    train = dataset.load("train", workspace.data_dir)
    shape = shape_of(dataset, train)
    classifier = _classifier(request.classifier, dataset.defaults.get("model"))
    MODELS.build(spec_of(classifier)).build(shape)
    used = inspected.images_used(len(train))
    splits = audit_splits(train.to(where), inspected.test, used, request.attacker, request.n)
    assert not splits.overlaps()
    run = _record(request, subject, base, classifier, splits, where)
    with ExitStack() as stack:
        folder, run, again = open_run_folder(run, workspace.out, request.name, display)
        if again:
            display.note(f"going on with {folder.name}")
        recorder = stack.enter_context(recording(run, folder, worthless=leaves_nothing))
        for note in run.notes:
            display.note(note)
        stack.enter_context(unchanged_model(subject.model))
        audit = InversionAudit(
            request=request,
            subject=subject,
            shape=shape,
            splits=splits,
            classifier=classifier,
            folder=folder,
            recorder=recorder,
            display=display,
        )
        rows = _rows(audit, explanations)
        recorder.update(
            measures=[*_measured(audit, rows)],
            samples=records.filed(write_arrays(folder / REBUILT, _arrays(audit, rows))),
            seconds=run.seconds + time.perf_counter() - began,
        )
    return folder


def _classifier(name: str | None, usual: ConfigTable | None) -> ConfigTable:
    """Return the architecture of the classifiers that are not the victim."""
    if name is not None:
        return components.component_table("model", name)
    return usual or {"name": "small-cnn"}


def _record(
    request: Inversion,
    subject: Subject,
    base: ConfigTable,
    classifier: ConfigTable,
    splits: AuditSplits,
    where: torch.device,
) -> Run:
    name = base["dataset"]["name"]
    settings = {**request.table(request.explanations()), "classifier": classifier}
    return Run(
        id=request.name or folders.new_id(f"invert-{subject.name}", name, subject.seed),
        kind="invert",
        created=records.now(),
        command=request.command,
        config=records.as_json({**base, "invert": settings, "splits": splits.where}),
        seed=subject.seed,
        parent=subject.parent,
        subject=subject.name,
        dataset={
            "name": name,
            "test": len(splits.evaluation),
            "test_sha256": splits.evaluation.fingerprint(),
        },
        environment=devices.run_environment(where),
        weights=subject.weights,
        evaluated=subject.kept,
        n=len(splits.evaluation),
        notes=[*dict.fromkeys((*subject.notes, *splits.notes))],
    )


def _rows(audit: InversionAudit, explanations: dict[str, Explanation]) -> dict[str, RebuiltImages]:
    """Return the images of every row, by its name."""
    private = audit.splits.evaluation
    mean, predicted = audit.mean_image, audit.confidences[2].confidences.argmax(1).cpu()
    rows = {
        ORIGINALS: RebuiltImages(images=whole_images(private)),
        MEAN: RebuiltImages(images=mean.expand(len(private), *mean.shape).clone()),
        CLASS_MEAN: RebuiltImages(images=_class_means(audit)[predicted]),
    }
    attacks = [InversionAttack(label=PREDICTION)]
    told = SURROGATE * audit.request.surrogate
    for label, explanation in explanations.items():
        of = InversionAttack(
            label=f"{PREDICTION}+{label}{told}", name=label, explanation=explanation
        )
        attacks += [of, replace(of, label=f"{of.label}{SHUFFLED}", shuffled=True)]
    return rows | {attack.label: audit.rebuilt(attack) for attack in attacks}


def _class_means(audit: InversionAudit) -> Tensor:
    """Return the mean of the attacker's images of each predicted class (K, C, H, W).

    A class that is never predicted has the mean of all.
    """
    images = whole_images(audit.splits.train)
    labels = audit.confidences[0].confidences.argmax(1).cpu()
    there = [labels == k for k in range(audit.shape.classes)]
    return torch.stack([images[k].mean(0) if k.any() else audit.mean_image for k in there])


def _measured(audit: InversionAudit, rows: dict[str, RebuiltImages]) -> Iterator[Measure]:
    labels = audit.splits.evaluation.y.cpu()
    truth = nn.functional.one_hot(audit.splits.train.y, audit.shape.classes).float()
    independent = audit.classifier_of("independent", truth)
    judges = Judges(audit.subject.model, independent, audit.splits.train.y.device)
    originals = rows[ORIGINALS].images
    for name, row in rows.items():
        yield from inversion_measures(name, row.images, originals, labels, judges, row.note)


def _arrays(audit: InversionAudit, rows: dict[str, RebuiltImages]) -> dict[str, np.ndarray]:
    """Return the arrays of ``reconstructions.npz``: images uint8 (N, C, H, W), the rest (N)."""
    private = audit.splits.evaluation
    images = {name: (255 * row.images).round().byte().numpy() for name, row in rows.items()}
    return {
        "index": private.ids.cpu().numpy(),
        "label": private.y.cpu().numpy(),
        **images,
    }
