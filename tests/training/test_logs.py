"""Logs beside the record: what they hold, what they need, and that they do without network."""

import sys

import pytest

from robustbench_cli.cli import main
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Spec
from robustbench_cli.runs import records
from robustbench_cli.training.logs import LOGS

SMALL = ["--set", "train.limit=64", "--set", "train.probe=16", "--set", "model.width=4", "-q"]


@pytest.mark.parametrize("name", LOGS.names())
def test_a_log_that_is_not_installed_says_how_to_get_it(name, monkeypatch):
    needed = {"tensorboard": "torch.utils.tensorboard"}.get(name, name)
    monkeypatch.setitem(sys.modules, needed, None)
    with pytest.raises(UserError, match=rf"pip install -e '.\[{name}\]'"):
        LOGS.build(Spec(name)).check()


def test_an_unknown_log_is_refused_before_anything_is_made(tmp_path, capsys):
    words = ["train", "standard", "--log", "tensorbord", "--out", str(tmp_path / "r")]
    assert main(words) == 2
    assert "unknown log 'tensorbord'; did you mean 'tensorboard'" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


@pytest.mark.filterwarnings("ignore")  # of other people's packages
def test_tensorboard_has_the_history(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = ["train", "standard", "--epochs", "2", "--log", "tensorboard", *SMALL]
    assert main([*words, "--out", str(tmp_path), "--name", "net"]) == 0
    events = EventAccumulator(str(tmp_path / "net" / "tensorboard"))
    events.Reload()
    history = records.read(tmp_path / "net").history
    for name in ("loss", "train_clean", "train_robust"):
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert found == [(row["epoch"], pytest.approx(row[name])) for row in history]
    assert "val_clean" not in events.Tags()["scalars"]  # there is no held-out image
    assert "config/text_summary" in events.Tags()["tensors"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_wandb_works_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    words = ["train", "standard", "--epochs", "1", "--log", "wandb:mode=offline", *SMALL]
    assert main([*words, "--out", str(tmp_path), "--name", "net"]) == 0
    assert records.read(tmp_path / "net").status == "ok"
    assert [*(tmp_path / "net" / "wandb").glob("offline-run-*-net/*.wandb")]
