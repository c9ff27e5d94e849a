"""``train.deterministic``: what torch and cuBLAS are told, and weights that come out alike."""

import os

import pytest
import torch

from robustbench_cli.commands import components, train_config
from robustbench_cli.commands import train as train_command
from robustbench_cli.commands.display import Display
from robustbench_cli.commands.workspace import Workspace
from robustbench_cli.runs import records

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
SMALL = ["train.limit=100", "train.probe=10", "train.batch_size=50", "train.epochs=2"]
SMALL += ["model.width=4", "dataset.augment=crop", "dataset.rotate=10"]


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch):
    """No word for cuBLAS before a test, and no trace of one after it."""
    monkeypatch.setenv(CUBLAS, "")
    monkeypatch.delenv(CUBLAS)
    yield
    torch.use_deterministic_algorithms(False)


def train(out, *, deterministic, name="run", display=None):
    """The weights' sha256."""
    pairs = [*SMALL, f"train.deterministic={deterministic}"]
    config = train_config.resolve_train_config(
        {"defense": components.defense_tables("trades:steps=2+mixup"), "seed": 0}, pairs
    )
    workspace = Workspace(out=out, device="cpu")
    return kept(
        train_command.run_training(
            config, workspace, display or Display(), command=["x"], run_id=name
        )
    )


def kept(folder):
    return records.read(folder).checkpoint.sha256


def test_two_runs_end_with_the_same_weights(tmp_path):
    one, two = (train(tmp_path, deterministic="true", name=name) for name in ("one", "two"))
    assert one == two
    assert torch.are_deterministic_algorithms_enabled()


def test_cublas_is_told_where_it_must_repeat_itself_and_only_there(tmp_path):
    train(tmp_path, deterministic="false", name="any")
    assert CUBLAS not in os.environ
    assert not torch.are_deterministic_algorithms_enabled()
    train(tmp_path, deterministic="true", name="asked")
    assert os.environ[CUBLAS] == ":4096:8"


def test_what_the_user_told_cublas_stands(tmp_path, monkeypatch):
    monkeypatch.setenv(CUBLAS, ":16:8")
    train(tmp_path, deterministic="true")
    assert os.environ[CUBLAS] == ":16:8"


def test_a_run_that_goes_on_tells_both_again(tmp_path, monkeypatch, stopping):
    whole = train(tmp_path, deterministic="true", name="whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, deterministic="true", name="cut", display=stopping(1))
    monkeypatch.delenv(CUBLAS)
    torch.use_deterministic_algorithms(False)
    workspace = Workspace(out=tmp_path, device="cpu")
    assert kept(train_command.resume_training("cut", workspace, Display())) == whole
    assert os.environ[CUBLAS] == ":4096:8"
    assert torch.are_deterministic_algorithms_enabled()
