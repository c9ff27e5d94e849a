"""``advbench eval``: a model under attacks, one folder per evaluation."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from robustbench_cli import records
from robustbench_cli.attacks import Attack
from robustbench_cli.config import EvalConfig, spec_of
from robustbench_cli.data import DATASETS, Split
from robustbench_cli.engine.evaluate import evaluate as verdicts_of
from robustbench_cli.engine.evaluate import examine
from robustbench_cli.engine.journal import Column, Journal
from robustbench_cli.errors import UserError
from robustbench_cli.noise import Noise
from robustbench_cli.records import Outcome, Recorder, Run
from robustbench_cli.run import setup
from robustbench_cli.run.display import Display
from robustbench_cli.run.setup import Place

CLEAN = "clean"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model to evaluate and how records call it."""

    model: nn.Module
    name: str
    weights: str
    """sha256 of the weights, or of the file that makes the model."""
    parent: str | None = None
    seed: int = 0
    """The seed of the training run, so that tables can join seeds."""


def evaluate(
    subject: Subject,
    config: EvalConfig,
    place: Place,
    display: Display,
    *,
    command: list[str],
    name: str | None,
) -> Path:
    """Judge every example under every attack; return the evaluation's folder.

    An unfinished evaluation of the same weights with the same settings is taken up again where
    it stopped.

    Raises:
        UserError: something asked for cannot be had; no folder is left behind.
        RunError: a verdict is not possible; what was judged is kept.
    """
    where = setup.device(place.device)
    dataset = DATASETS.build(spec_of(config.dataset))
    test = dataset.load("test", place.data_dir)
    if config.n > len(test):
        raise UserError(f"--n {config.n}: the test split has {len(test)} examples")
    data = test.only(slice(config.n or len(test))).to(where)
    attacks = setup.build_attacks(config, len(test.classes))
    model = subject.model.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    examine(model, data.images(slice(2)), len(test.classes))

    run = Run(
        id=name or records.new_id(f"eval-{subject.name}", config.dataset["name"], subject.seed),
        kind="eval",
        created=records.now(),
        command=command,
        config=asdict(config),
        seed=subject.seed,
        parent=subject.parent,
        subject=subject.name,
        dataset={
            "name": config.dataset["name"],
            "test": len(test),
            "test_sha256": test.fingerprint(),
        },
        environment=setup.environment(where),
        weights=subject.weights,
        n=len(data),
    )
    unfinished = _unfinished(run, place.out, name)
    folder = unfinished or records.new_folder(place.out, run.id)
    if unfinished:
        display.note(f"going on with {unfinished.name}")
        run = records.read(unfinished)
    with records.recording(run, folder) as recorder:
        journal = Journal(folder, len(data))
        _judge_all(recorder, journal, model, data, attacks, config, display)
    journal.drop()
    return folder


def _unfinished(run: Run, results: Path, name: str | None) -> Path | None:
    """The folder of an evaluation that asks the same of the same weights and is not done."""
    for folder, other in reversed(records.folders(results)):
        same = name in (None, other.id) and (
            other.kind,
            other.config,
            other.weights,
            other.dataset,
        ) == (
            run.kind,
            run.config,
            run.weights,
            run.dataset,
        )
        if same and other.status in ("started", "interrupted", "failed"):
            return folder
    return None


def _judge_all(
    recorder: Recorder,
    journal: Journal,
    model: nn.Module,
    data: Split,
    attacks: Mapping[str, Attack],
    config: EvalConfig,
    display: Display,
) -> None:
    noise = Noise(config.seed, torch.arange(len(data), device=data.y.device))
    labels = data.y.cpu().numpy()
    columns: dict[str, Column] = {}
    outcomes: dict[str, Outcome] = {}
    right = np.ones(len(data), bool)  # every example counts in the clean column
    for position, (label, attack) in enumerate([(CLEAN, None), *attacks.items()]):
        # Keyed by the attack, not its label: pgd100 begins where pgd20 does.
        source = noise.fork(config.attack[label]["name"] if attack else CLEAN)
        column = columns[label] = journal.column(str(position))
        clean = torch.from_numpy(columns[CLEAN].arrays["prediction"]) if attack else None
        display.judging(label, len(data))
        todo = [rows for rows in _batches(len(data), config) if rows.start not in column.done]
        for rows, verdicts in verdicts_of(
            model, data, attack, config.threat, noise=source, clean=clean, batches=todo
        ):
            journal.append(str(position), rows, verdicts)
            column.put(rows, verdicts)
            hits = column.arrays["prediction"] == labels
            judged = column.arrays["prediction"] >= 0
            display.judged(int(judged.sum()), float((hits & right)[judged].mean()))
        correct = right & (column.arrays["prediction"] == labels)
        if attack is None:
            right = correct
            recorder.update(clean_accuracy=float(correct.mean()))
            continue
        outcomes[label] = Outcome(
            params=config.attack[label],
            n=len(data),
            correct=int(correct.sum()),
            robust_accuracy=float(correct.mean()),
            forwards=column.forwards,
            backwards=column.backwards,
            seconds=column.seconds,
        )
        recorder.update(attacks=dict(outcomes))
    standing = np.logical_and.reduce([c.arrays["prediction"] == labels for c in columns.values()])
    arrays = {"index": np.arange(len(data), dtype=np.int32), "label": labels.astype(np.int32)}
    for label, column in columns.items():
        arrays |= {f"{label}/{key}": values for key, values in column.arrays.items()}
    recorder.update(
        worst_case_accuracy=float(standing.mean()),
        examples=journal.close(arrays),
        seconds=sum(column.seconds for column in columns.values()),
    )


def _batches(n: int, config: EvalConfig) -> list[slice]:
    size = config.batch_size
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]
