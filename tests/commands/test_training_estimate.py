"""How long a training will take, from a few of its updates."""

from dataclasses import replace

import pytest

from robustbench_cli.commands import training_estimate as estimates
from robustbench_cli.commands.training_estimate import training_estimate
from robustbench_cli.commands.workspace import Workspace
from robustbench_cli.core.errors import UserError

DIGITS = ["train", "pgd-at", "--dataset", "digits", "--model", "digits-cnn:width=4"]


def test_minutes_are_those_of_all_images_and_epochs(tmp_path, monkeypatch):
    shown = []

    def trial(task, config, images, workspace):
        assert (config.train.epochs, config.train.limit) == (7, 100)
        shown.append(images)
        return 0.5 if images < 100 else 1.5

    monkeypatch.setattr(estimates, "_trial", trial)
    words = [*DIGITS, "--epochs", "7", "--set", "train.limit=100"]
    found = training_estimate(words, Workspace(out=tmp_path, data_dir=tmp_path))
    assert shown == [8, 32, 100]
    assert (found.images, found.epochs) == (100, 7)
    assert found.minutes == pytest.approx(7 * 1.5 / 60)


def test_a_slow_net_is_tried_on_few_images_only(tmp_path, monkeypatch):
    monkeypatch.setattr(estimates, "_trial", lambda task, config, images, workspace: 8.0)
    words = [*DIGITS, "--epochs", "2", "--set", "train.limit=80"]
    found = training_estimate(words, Workspace(out=tmp_path, data_dir=tmp_path))
    assert found.minutes == pytest.approx(2 * 80 / estimates.TRIAL_IMAGES * 8.0 / 60)


def test_a_trial_trains_and_leaves_nothing(tmp_path):
    out = tmp_path / "results"
    found = training_estimate(
        [*DIGITS, "--epochs", "30"], Workspace(out=out, data_dir=tmp_path, device="cpu")
    )
    assert 0 < found.minutes < 60
    assert not out.exists()


def test_what_cannot_be_had_is_said(tmp_path):
    there = Workspace(out=tmp_path, data_dir=tmp_path)
    with pytest.raises(UserError, match="no estimate of a training with --teacher RUN"):
        training_estimate([*DIGITS, "--teacher", "RUN"], there)
    with pytest.raises(UserError, match="nowhere"):
        training_estimate([*DIGITS, "--dataset", f"npz:{tmp_path}/nowhere.npz"], there)


def test_an_estimate_is_made_once_for_a_folder(tmp_path, monkeypatch):
    lengths = iter([3.0, 9.0])
    monkeypatch.setattr(estimates, "_trial", lambda *_: next(lengths))
    there = Workspace(out=tmp_path / "runs", data_dir=tmp_path)
    first = estimates.kept_estimate(DIGITS, there, keep=True)
    assert estimates.kept_estimate(DIGITS, there, keep=True) == first
    other = replace(there, out=tmp_path / "other")
    assert estimates.kept_estimate(DIGITS, other, keep=False).minutes == 3 * first.minutes
    assert not other.out.exists()
    (there.out / estimates.KEPT_ESTIMATES).write_text("{")
    with pytest.raises(UserError, match=r"estimates\.json is damaged"):
        estimates.kept_estimate(DIGITS, there, keep=True)
