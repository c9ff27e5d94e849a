"""Real small things that most tests need."""

import gc
import itertools
import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from warm_processes import WarmProcess, serving

from robustbench_cli.commands import control, job_runner
from robustbench_cli.config import catalogue, presets
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.defenses import Recipe
from robustbench_cli.evaluation.journal import write_arrays
from robustbench_cli.models import MODELS, Classifier, Shape
from robustbench_cli.runs import records
from robustbench_cli.runs.outcomes import Checkpoint, Outcome
from robustbench_cli.runs.records import Run
from robustbench_cli.runs.trust import Checked

pytest_plugins = ["time_limits"]

# Small nets on busy cores: two threads that wait for each other are many times slower than one.
torch.set_num_threads(1)

ROOT = Path(__file__).parents[1]
SCAN, FILES = cache(catalogue.scan), cache(presets.files)
SHAPE = Shape(channels=1, height=8, width=8, classes=4, mean=(0.2,), std=(0.7,))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What collection makes stays: the collector of garbage need not look through it again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing is read from the user's cache, and nothing written there."""
    os.environ["ADVBENCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True, scope="session")
def no_waiting_for_the_disk() -> Iterator[None]:
    """Files are not flushed to the disk, which takes milliseconds each; no test cuts the power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _descriptor: None)
        yield


@pytest.fixture(autouse=True, scope="module")
def short_control(request: pytest.FixtureRequest) -> Iterator[None]:
    """Evaluations end with a short control, whose length is most of the time of a small one.

    Modules about what the control finds say ``WHOLE_CONTROL = True``.
    """
    with pytest.MonkeyPatch.context() as patch:
        if not getattr(request.module, "WHOLE_CONTROL", False):
            patch.setattr(control, "CORNER", "corners2")
            patch.setattr(control, "SEARCHES", ("square4", "sparse-rs4"))
            patch.setattr(control, "TARGETED", "apgd-t:steps=2,targets=1")
        yield


SEED = torch.manual_seed if torch.cuda.is_available() else torch.default_generator.manual_seed
"""Seeds torch; without a GPU not by ``manual_seed``, which writes down the stack for a later one:
a millisecond before every test."""


@pytest.fixture(autouse=True)
def seeded() -> None:
    SEED(0)


def small_net(shape: Shape, kind: str = "digits-cnn") -> Classifier:
    """A small net in float64, so that oracles can be exact; BatchNorm has seen some data."""
    net = MODELS.build(Spec(kind, {"width": 4})).build(shape).double()
    net.train()
    for _ in range(3):
        net(torch.rand(32, shape.channels, 8, 8).double())
    return net


@pytest.fixture
def scanned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a test over every name: the package and its presets are looked for once for all."""
    monkeypatch.setattr(catalogue, "scan", SCAN)
    monkeypatch.setattr(presets, "files", FILES)


@pytest.fixture
def model() -> Classifier:
    """A small net in float64."""
    return small_net(SHAPE)


@pytest.fixture
def network() -> Callable[[Recipe], Classifier]:
    """A maker of small nets in float64 for recipes: of the kind that each can be trained on."""

    def made(recipe: Recipe) -> Classifier:
        kind = recipe.objective.small_model
        return recipe.network(lambda shape: small_net(shape, kind), SHAPE).double()

    return made


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    return torch.rand(6, 1, 8, 8).double(), torch.tensor([0, 1, 2, 3, 0, 1])


@pytest.fixture
def noise() -> Noise:
    return Noise(0, torch.arange(6))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Where MNIST and the CIFAR-10 JPEGs are; tests skip where they are not."""
    named = os.environ.get("ADVBENCH_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    if not (folder / "MNIST" / "raw").is_dir():
        pytest.skip(f"no MNIST at {folder}; set ADVBENCH_DATA")
    return folder


@pytest.fixture(scope="session")
def digits_model() -> tuple[Classifier, Tensor, Tensor]:
    """A net trained for a few seconds on the digits, with 24 test images and their labels."""
    from robustbench_cli.data import DATASETS

    torch.manual_seed(0)
    digits = DATASETS.build(Spec("digits"))
    train, test = (digits.load(split, Path()) for split in ("train", "test"))
    shape = Shape(1, 8, 8, 10, (0.0,), (1.0,))
    net = MODELS.build(Spec("digits-cnn", {"width": 8})).build(shape)
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    for epoch in range(8):
        for rows in torch.randperm(len(train)).split(64):
            x = train.images(rows)
            # A little adversarial training by noise, so that attacks have something to do.
            x = (x + 0.2 * torch.randn_like(x)).clamp(0, 1) if epoch % 2 else x
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(x), train.y[rows]).backward()
            optimizer.step()
    net.eval().requires_grad_(False)
    return net, test.images(slice(24)), test.y[:24]


minutes = itertools.count()


@pytest.fixture
def trained():
    """A maker of training records: each is a minute younger than the one before."""
    return trained_run


@pytest.fixture
def evaluated():
    """A maker of evaluation records."""
    return evaluated_run


@pytest.fixture(scope="session")
def drawn():
    """A writer of random images: an .npz of 60 and 20 to test on, whose classes take turns."""

    def write(path, classes, channels):
        draw = np.random.default_rng(0)
        arrays = {"y": np.arange(60) % classes, "y_test": np.arange(20) % classes}
        arrays |= {
            key: draw.integers(0, 255, (count, 8, 8, channels), dtype=np.uint8)
            for key, count in (("x", 60), ("x_test", 20))
        }
        np.savez(path, **arrays)

    return write


@pytest.fixture(scope="session")
def warm_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A server of ``tests/plugins/warm_processes.py``, which forks what it is asked for."""
    with serving(tmp_path_factory.mktemp("warm")):
        yield


@pytest.fixture
def in_warm_processes(monkeypatch: pytest.MonkeyPatch, warm_processes: None) -> None:
    """Commands of a study have processes of their own, which are forked from one with torch."""
    plain = subprocess.Popen

    def popen(args, **options):
        started = WarmProcess if args[0] == sys.executable else plain
        return started(args, **options)

    monkeypatch.setattr(job_runner.subprocess, "Popen", popen)


@pytest.fixture(scope="session")
def two_processes():
    """A runner of a command in two processes that share it, as ``torchrun`` tells them to.

    They are forked: three interpreters that import torch take longer than most of such tests.
    The launcher itself is tested where ``torch.distributed.run`` is named.
    """

    def run(command: Callable[[], int]) -> list[int]:
        """Return the two exit codes."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
        children = []
        for rank in "01":
            child = os.fork()
            if not child:
                code = 1
                try:
                    os.environ.update(told, RANK=rank, LOCAL_RANK=rank, LOCAL_WORLD_SIZE="2")
                    code = int(command())
                except BaseException:
                    traceback.print_exc()
                os._exit(code)
            children.append(child)
        return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]

    return run


@pytest.fixture
def asking():
    """What a user types who asks for a preset: its name, and the options that it needs."""
    given = {
        "extra-data": {"extra": {"name": "npz", "path": "images.npz"}},
        "init": {"parents": {"init": {"run": "one", "weights": "w"}}},
        "teacher": {"parents": {"teacher": {"run": "one", "weights": "w"}}},
    }

    def typed(name):
        sections = {"preset": name}
        for option in presets.needs(name):
            sections |= given[option]
        return sections

    return typed


@pytest.fixture
def without_torch():
    """Run a command in a process of its own, which fails if torch was imported on the way."""

    def run(*args):
        code = (
            "import sys; from robustbench_cli.cli import main;"
            "assert main(sys.argv[1:]) == 0; sys.exit('torch' in sys.modules)"
        )
        return subprocess.run(
            [sys.executable, "-c", code, *args], capture_output=True, cwd=ROOT, check=False
        )

    return run


@pytest.fixture
def kept():
    """A writer of records: each into a folder of its own."""

    def write(results, *runs):
        for run in runs:
            (results / run.id).mkdir(parents=True)
            records.write(run, results / run.id)

    return write


@pytest.fixture
def judged(evaluated):
    """A writer of evaluations with their verdicts: the record and ``examples.npz``."""

    def write(results, parent, clean, attacks, /, *, labels=None, **changes):
        """Write an evaluation whose numbers are those of its verdicts; return the record.

        Args:
            clean: how often each image is right (N).
            attacks: label -> (parameters, the same under the attack).
        """
        n = len(clean)
        right = {label: np.minimum(clean, share) for label, (_, share) in attacks.items()}
        figures = {
            label: {"robust_accuracy": float(share.mean()), "majority_accuracy": None}
            | ({} if set(share) <= {0, 1} else {"majority_accuracy": float((share > 0.5).mean())})
            for label, share in right.items()
        }
        worst = np.min([clean, *right.values()], axis=0)
        run = evaluated(
            parent,
            {
                label: (params, int((right[label] > 0.5).sum()), figures[label])
                for label, (params, _) in attacks.items()
            },
            clean=float(clean.sum()),
            n=n,
            worst=float(worst.sum()),
            **changes,
        )
        arrays = {"index": np.arange(n), "label": np.arange(n) % 10 if labels is None else labels}
        for label, share in {"clean": clean, **{k: v for k, (_, v) in attacks.items()}}.items():
            arrays |= {f"{label}/share": np.asarray(share, np.float32)}
            wrong = np.minimum(clean, share) < 0.5
            arrays |= {f"{label}/prediction": (arrays["label"] + wrong) % 10}
        (results / run.id).mkdir(parents=True)
        path = write_arrays(results / run.id / "examples.npz", arrays)
        run = replace(run, examples=records.filed(path))
        records.write(run, results / run.id)
        return run

    return write


def trained_run(subject="trades", seed=0, *, rule="last", id=None, data="mnist", **config):
    """The record of a training run; ``config`` replaces sections of its configuration."""
    when = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=next(minutes))
    return Run(
        id=id or f"{subject}-s{seed}-{when:%d%H%M}",
        kind="train",
        status="ok",
        created=when,
        command=["train", subject],
        config={
            "defense": {subject: {"name": subject}},
            "model": {"name": "small-cnn", "dropout": 0.5},
            "train": {"epochs": 30, "lr": 0.1},
            "seed": seed,
            **config,
        },
        seed=seed,
        subject=subject,
        dataset={"name": data, "train_sha256": "t", "test_sha256": "f"},
        checkpoint=Checkpoint(
            file="model.safetensors", sha256=f"w{when:%m%d%H%M}", epoch=30, rule=rule
        ),
    )


def evaluated_run(
    parent,
    attacks,
    /,
    *,
    clean=90,
    n=100,
    eps=0.3,
    norm="Linf",
    worst=None,
    sha="f",
    sweep=None,
    source=None,
    **changes,
):
    """The record of an evaluation whose checks found nothing.

    Args:
        attacks: label -> (parameters, right answers); a third item: further figures.
        worst: right answers under all of them.
        sweep: what ``config.sweep`` holds.
        source: the training run that images were crafted on.
        changes: replace fields of the record.
    """
    when = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=next(minutes))
    outcomes = {
        label: Outcome(
            **{
                "params": params,
                "n": n,
                "correct": correct,
                "robust_accuracy": correct / n,
                "forwards": 1,
                "backwards": 1,
                "seconds": 1.0,
                "trust": "sound",
                **dict(*figures),
            }
        )
        for label, (params, correct, *figures) in attacks.items()
    }
    lowest = min(correct for _, correct, *_ in attacks.values()) if worst is None else worst
    made_on = {"id": source.id, "weights": source.checkpoint.sha256} if source else {}
    fields = {
        "id": f"eval-{when:%d%H%M}",
        "kind": "eval",
        "status": "ok",
        "created": when,
        "command": ["eval"],
        "config": {
            "attack": {label.split("@")[0]: params for label, (params, *_) in attacks.items()},
            "dataset": {"name": parent.dataset["name"]},
            "model": parent.config["model"],
            "threat": {"norm": norm, "eps": eps},
            "sweep": sweep or {},
            "source": made_on,
            "seed": 0,
        },
        "seed": parent.seed,
        "parent": parent.id,
        "subject": parent.subject,
        "dataset": {"name": parent.dataset["name"], "test": 1000, "test_sha256": sha},
        "weights": parent.checkpoint.sha256,
        "n": n,
        "clean_accuracy": clean / n,
        "worst_case_accuracy": lowest / n,
        "checked": Checked(names=["secant"], images=32, forwards=64, backwards=32, seconds=0.1),
        "clean_trust": "sound",
        "worst_case_trust": "sound",
        "attacks": outcomes,
    }
    return Run(**{**fields, **changes})
