"""Runs to list and to explain, and what the commands print of them."""

from datetime import UTC, datetime, timedelta

import pytest

from robustbench_cli.cli import main
from robustbench_cli.runs import records
from robustbench_cli.runs.outcomes import Checkpoint, Outcome
from robustbench_cli.runs.records import Run

START = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def results(tmp_path):
    """A training run, an evaluation of it, and a run that failed."""
    common = {"subject": "trades", "dataset": {"name": "digits"}}
    runs = [
        Run(
            **common,
            id="trades-digits-s3-20260101-1200-4f1a",
            kind="train",
            status="ok",
            created=START,
            command=["train", "trades", "--set", "train.limit=200 "],
            config={
                "defense": {"trades": {"name": "trades", "beta": 6.0}, "awp": {"name": "awp"}},
                "threat": {"norm": "Linf", "eps": 8 / 255},
                "train": {"epochs": 2},
                "seed": 3,
                "preset": None,
            },
            seed=3,
            history=[
                {"epoch": 1, "train_clean": 0.5, "train_robust": 0.2},
                {
                    "epoch": 2,
                    "train_clean": 0.75,
                    "train_robust": 0.5,
                    "val_clean": 0.7,
                    "val_robust": 0.4,
                },
            ],
            checkpoint=Checkpoint(file="model.safetensors", sha256="w", epoch=2, rule="last"),
            seconds=61.4,
        ),
        Run(
            **common,
            id="eval-trades-digits-s3-20260101-1210-77aa",
            kind="eval",
            status="ok",
            created=START + timedelta(minutes=10),
            command=["eval", "--attack", "pgd20"],
            config={"dataset": {"name": "digits"}},
            parent="trades-digits-s3-20260101-1200-4f1a",
            seed=3,
            n=100,
            weights="w" * 64,
            clean_accuracy=0.9,
            worst_case_accuracy=0.52,
            attacks={
                "pgd20": Outcome(
                    params={"name": "pgd"},
                    n=100,
                    correct=52,
                    robust_accuracy=0.52,
                    forwards=1,
                    backwards=1,
                    seconds=1.0,
                )
            },
        ),
        Run(
            id="[bold]x",
            kind="train",
            status="failed",
            created=START + timedelta(minutes=20),
            command=["train"],
            config={},
            error="RunError: the loss is NaN",
        ),
    ]
    for run in runs:
        (tmp_path / "results" / run.id).mkdir(parents=True)
        records.write(run, tmp_path / "results" / run.id)
    return tmp_path / "results"


@pytest.fixture
def said(results, capsys):
    def run(command, *args):
        assert main([command, *args, "--results", str(results)]) == 0
        return capsys.readouterr().out

    return run


@pytest.fixture
def refused(results, capsys):
    def run(command, *args):
        assert main([command, *args, "--results", str(results)]) == 2
        out = capsys.readouterr()
        assert not out.out
        assert out.err.count("\n") == 1
        return out.err.removeprefix("advbench: ").strip()

    return run
