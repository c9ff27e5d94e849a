"""``advbench synth``: generators fitted on training images, and images drawn from them."""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from robustbench_cli.commands import components, devices
from robustbench_cli.commands.display import Display
from robustbench_cli.commands.run_folder import leaves_nothing, open_run_folder
from robustbench_cli.commands.workspace import Workspace
from robustbench_cli.config.schema import spec_of
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Spec
from robustbench_cli.data import DATASETS, Split
from robustbench_cli.evaluation.journal import write_arrays
from robustbench_cli.generators import GENERATORS, _sampling
from robustbench_cli.runs import folders, records
from robustbench_cli.runs.recorder import recording
from robustbench_cli.runs.records import Run
from robustbench_cli.training import checkpoint

_FITTED = "generator.safetensors"
SAMPLES = "samples.npz"
CPU = torch.device("cpu")
ENDS = partial(leaves_nothing, resumable=False)


@dataclass(frozen=True, kw_only=True)
class GeneratorFitting:
    """The settings of one ``synth fit``."""

    generator: str
    dataset: str
    limit: int | None
    workspace: Workspace
    command: list[str]
    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """The settings of one ``synth sample``."""

    run: str
    n: int
    seed: int
    workspace: Workspace
    command: list[str]
    name: str | None = None


def fit_generator(request: GeneratorFitting, display: Display) -> Path:
    """Fit a generator on training images, as they are; return the folder.

    It holds ``generator.safetensors``: tensors only.  Images of the test split are left out where
    they are among the training images, too.

    Raises:
        UserError: something asked for cannot be had; no folder is left behind.
    """
    generator, began = GENERATORS.build(Spec.parse(request.generator)), time.perf_counter()
    dataset = DATASETS.build(spec_of(components.component_table("dataset", request.dataset)))
    given, test = (dataset.load(split, request.workspace.data_dir) for split in ("train", "test"))
    given, test = given.only(slice(request.limit)).to("cpu"), test.to("cpu")
    train = _sampling.unseen(given, test)
    left_out = len(given) - len(train)
    if not len(train):
        raise UserError(f"all {len(given)} training images are in the test split, too")
    known = _sampling.learned(generator, train)
    name, label = DATASETS.name_of(dataset), components.component_label(GENERATORS, generator)
    run = Run(
        id=request.name or folders.new_id(f"synth-{GENERATORS.name_of(generator)}", name, 0),
        kind="synth",
        created=records.now(),
        command=request.command,
        config=records.as_json(
            {
                "generator": {label: GENERATORS.describe(generator)},
                "dataset": DATASETS.describe(dataset),
                "limit": request.limit,
            }
        ),
        subject=label,
        dataset={
            "name": name,
            "train": len(train),
            "train_sha256": train.fingerprint(),
            "test_sha256": test.fingerprint(),
            "classes": list(train.classes),
        },
        environment=devices.run_environment(CPU),
        n=len(train),
        notes=[f"{left_out} training images are in the test split, too: left out"] * bool(left_out),
    )
    folder, run, _ = open_run_folder(run, request.workspace.out, request.name, display)
    with recording(run, folder, worthless=ENDS) as recorder:
        checkpoint.save_tensors(folder / _FITTED, known, {"generator": label})
        kept = records.filed(folder / _FITTED)
        recorder.update(fitted=kept, seconds=time.perf_counter() - began)
    for note in (*run.notes, f"{label}: fitted on {len(train)} training images of {name}"):
        display.note(note)
    return folder


def draw_samples(request: Sampling, display: Display) -> Path:
    """Draw labelled images, uint8; return the .npz file, for ``--extra-data npz:FILE``.

    Raises:
        UserError: there is no such generator, or it is damaged; no folder is left behind.
    """
    began, source = (
        time.perf_counter(),
        folders.find_run(request.run, request.workspace.out, "synth"),
    )
    fitted = records.read(source)
    if not fitted.fitted:
        raise UserError(f"run {fitted.id!r} has no generator; fit one: advbench synth fit gaussian")
    known = checkpoint.load_recorded(source, fitted.fitted)
    ((label, described),) = fitted.settings.generator.items()
    generator = GENERATORS.build(spec_of(described))
    images, labels = _sampling.sampled(generator, known, request.n, request.seed)
    # As a training on them will see them: tables find by it what a run's extra data were made of.
    drawn = Split(images, labels, tuple(fitted.dataset.get("classes", ())))
    made_up = f"samples-{described['name']}"
    run = Run(
        id=request.name or folders.new_id(made_up, fitted.settings.data_name, request.seed),
        kind="synth",
        created=records.now(),
        command=request.command,
        config={**fitted.config, "n": request.n, "seed": request.seed},
        seed=request.seed,
        parent=fitted.id,
        subject=label,
        dataset={**fitted.dataset, "extra": request.n, "extra_sha256": drawn.fingerprint()},
        environment=devices.run_environment(CPU),
        weights=fitted.fitted["sha256"],
        n=request.n,
    )
    folder, run, _ = open_run_folder(run, request.workspace.out, request.name, display)
    with recording(run, folder, worthless=ENDS) as recorder:
        arrays = {"image": images.numpy(), "label": labels.numpy()}
        path = write_arrays(folder / SAMPLES, arrays)
        recorder.update(samples=records.filed(path), seconds=time.perf_counter() - began)
    display.note(f"{label}: {request.n} images like those of {fitted.settings.data_name}")
    return path
