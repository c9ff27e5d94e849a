"""Whole runs on real digits: records, resuming, selection, and what is left after a failure."""

import json
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from warm_processes import WarmProcess

from robustbench_cli.commands import components, devices, train_config
from robustbench_cli.commands import evaluate as eval_command
from robustbench_cli.commands import train as train_command
from robustbench_cli.commands.display import Display
from robustbench_cli.commands.eval_config import chosen_attacks, resolve_eval_config
from robustbench_cli.commands.eval_request import EvalRequest
from robustbench_cli.commands.load_model import Choice, find_model
from robustbench_cli.commands.workspace import Workspace
from robustbench_cli.core.errors import RunError, UserError
from robustbench_cli.evaluation import journal
from robustbench_cli.evaluation.journal import read_arrays
from robustbench_cli.runs import folders, recorder, records

SMALL = ["train.epochs=3", "train.limit=200", "train.probe=50", "model.width=4"]


def config(defense="pgd-at:steps=2", *settings, seed=0):
    return train_config.resolve_train_config(
        {"defense": components.defense_tables(defense), "seed": seed}, [*SMALL, *settings]
    )


def train(out, chosen, name="run", display=None):
    workspace = Workspace(out=out, device="cpu")
    return train_command.run_training(
        chosen, workspace, display or Display(), command=["x"], run_id=name
    )


def evaluate(out, run, attacks, n=60, batch_size=20, display=None, **more):
    workspace = Workspace(out=out, device="cpu")
    subject, base = find_model(Choice(run=run), workspace)
    typed = {"attack": chosen_attacks(attacks, None, {})}
    chosen = resolve_eval_config(base, {**typed, "n": n, "batch_size": batch_size, **more}, [])
    request = EvalRequest(subject=subject, config=chosen, workspace=workspace, command=["x"])
    return eval_command.run_evaluation(request, display or Display())


class Stop(Display):
    """Ctrl-C at a chosen moment."""

    def __init__(self, epochs=None, batches=None):
        self._epochs, self._batches = epochs, batches

    def epoch(self, row):
        if row["epoch"] == self._epochs:
            raise KeyboardInterrupt

    def batch(self, watch):
        if self._batches is not None:
            self._batches -= 1
            if self._batches < 0:
                raise KeyboardInterrupt

    def judged(self, done, accuracy):
        self.batch(None)


def weights(folder):
    return records.sha256(folder / "model.safetensors")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("results")
    return train(out, config("trades:steps=2+he"))


def test_a_record_holds_all_that_decided_the_run(trained):
    run = json.loads((trained / "run.json").read_text())
    assert run["schema"] == 1
    assert run["status"] == "ok"
    assert run["config"]["defense"]["trades"]["beta"] == 6.0  # a default, written down
    assert run["config"]["defense"]["he"]["scale"] == 15.0
    assert run["config"]["threat"] == {"norm": "Linf", "eps": pytest.approx(0.15)}
    assert run["config"]["optimizer"]["beta2"] == 0.999
    assert run["subject"] == "trades:steps=2+he"
    assert len(run["dataset"]["train_sha256"]) == len(run["checkpoint"]["sha256"]) == 64
    assert run["dataset"]["train"] == 200
    assert {"torch", "python", "device", "threads"} <= set(run["environment"])
    assert [row["epoch"] for row in run["history"]] == [1, 2, 3]
    assert all(math.isfinite(row["loss"]) for row in run["history"])
    assert all(row["batch_clean"] is not None for row in run["history"])
    assert run["checkpoint"]["epoch"] == 3
    assert run["checkpoint"]["rule"] == "last"
    assert sorted(p.name for p in trained.iterdir()) == [".lock", "model.safetensors", "run.json"]


def test_the_same_seed_gives_the_same_weights_and_another_seed_does_not(tmp_path):
    chosen = config()
    a, b = train(tmp_path, chosen, "a"), train(tmp_path, chosen, "b")
    c = train(tmp_path, config(seed=1), "c")
    assert weights(a) == weights(b) != weights(c)


MART = ["mart:steps=2+awp:warmup=0", "train.validation=40", "train.select=best"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return train(tmp_path_factory.mktemp("whole"), config(*MART))


@pytest.mark.parametrize("stop", [Stop(epochs=1), Stop(epochs=2), Stop(batches=3), Stop(batches=0)])
def test_an_interrupted_run_resumes_to_the_same_weights(stop, tmp_path, uninterrupted):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, config(*MART), "cut", stop)
    assert records.read(tmp_path / "cut").status == "interrupted"
    workspace = Workspace(out=tmp_path, device="cpu")
    cut = train_command.resume_training("cut", workspace, Display())
    assert weights(cut) == weights(uninterrupted)
    a, b = (records.read(f) for f in (cut, uninterrupted))
    timing = {"seconds", "train_seconds", "cpu_seconds"}
    for left, right in zip(a.history, b.history, strict=True):
        assert {k: v for k, v in left.items() if k not in timing} == {
            k: v for k, v in right.items() if k not in timing
        }
    assert a.checkpoint == b.checkpoint
    with pytest.raises(UserError, match="is finished"):
        train_command.resume_training("cut", workspace, Display())


def test_best_keeps_the_epoch_with_the_best_held_out_robustness(tmp_path):
    chosen = config("pgd-at:steps=2", "train.validation=60", "train.select=best")
    run = records.read(train(tmp_path, chosen))
    robust = [row["val_robust"] for row in run.history]
    assert run.checkpoint.epoch == 1 + int(np.argmax(robust))
    assert run.checkpoint.rule == "best"


def test_a_fixed_epoch_and_the_oracle_say_so(tmp_path):
    fixed = records.read(
        train(tmp_path, config("standard", "train.select=epoch", "train.select_epoch=2"), "f")
    )
    assert (fixed.checkpoint.epoch, fixed.checkpoint.rule) == (2, "epoch")
    oracle = records.read(train(tmp_path, config("standard", "train.select=oracle"), "o"))
    assert oracle.checkpoint.rule == "oracle"


def test_the_held_out_split_is_disjoint_and_the_same_for_every_seed(tmp_path):
    workspace = Workspace(out=tmp_path, device="cpu")
    held = []
    for seed in (0, 1):
        chosen = config("standard", "train.validation=50", seed=seed)
        trainer = train_command._prepare(chosen, workspace, torch.device("cpu")).trainer
        assert len(trainer.data) == 150
        assert len(trainer.held_out) == 50
        held.append(trainer.held_out.fingerprint())
        rows = {bytes(x.numpy().tobytes()) for x in trainer.data.x}
        assert not any(bytes(x.numpy().tobytes()) in rows for x in trainer.held_out.x)
    assert held[0] == held[1]


def test_a_loss_that_explodes_stops_the_run_and_keeps_what_was_finished(tmp_path):
    with pytest.raises(RunError, match="not finite in epoch 1"):
        train(tmp_path, config("standard", "train.lr=1e30", "optimizer.name=sgd"))
    run = records.read(tmp_path / "run")
    assert run.status == "failed"
    assert "not finite" in run.error


def test_verdicts_are_recorded_per_example_and_add_up(trained):
    folder = evaluate(trained.parent, "run", ["fgsm", "pgd3", "cw3"])
    run = records.read(folder)
    assert (run.status, run.parent, run.n) == ("ok", "run", 60)
    assert run.weights == weights(trained)
    arrays = read_arrays(folder / run.examples["file"])
    assert records.sha256(folder / run.examples["file"]) == run.examples["sha256"]
    right = arrays["clean/prediction"] == arrays["label"]
    assert run.clean_accuracy == pytest.approx(right.mean())
    for label, outcome in run.attacks.items():
        held = right & (arrays[f"{label}/prediction"] == arrays["label"])
        assert outcome.correct == held.sum()
        assert outcome.robust_accuracy == pytest.approx(held.mean())
        assert (arrays[f"{label}/norm"] <= 0.15 + 1e-6).all()
        fell = right & ~held
        assert ((arrays[f"{label}/step"] >= 0) == fell).all()
        spent = arrays[f"{label}/forwards"]
        assert outcome.forwards == spent.sum()
        assert (spent[right] >= 4).all()  # clean, a look, a confirmation and the verdict
        assert not spent[~right].any()
    worst = np.logical_and.reduce(
        [right, *(arrays[f"{a}/prediction"] == arrays["label"] for a in run.attacks)]
    )
    assert run.worst_case_accuracy == pytest.approx(worst.mean())
    assert not (folder / "journal").exists()


def test_a_named_evaluation_goes_on_under_its_name(trained, tmp_path):
    workspace = Workspace(out=tmp_path, device="cpu")
    subject, base = find_model(Choice(run=str(trained)), workspace)
    typed = {"attack": chosen_attacks(["pgd4"], None, {}), "batch_size": 20, "n": 60}
    chosen = resolve_eval_config(base, typed, [])

    def judge(display):
        request = EvalRequest(
            subject=subject, config=chosen, workspace=workspace, command=[], name="mine"
        )
        return eval_command.run_evaluation(request, display)

    with pytest.raises(KeyboardInterrupt):
        judge(Stop(batches=4))
    done = records.read(judge(Display()))
    assert done.status == "ok"
    assert done.resumed == [devices.run_environment(devices.resolve_device("cpu"))]
    with pytest.raises(UserError, match="choose another --name"):
        judge(Display())


@pytest.fixture(scope="module")
def other_seed(trained):
    """A finished evaluation that is not the one to go on with."""
    return evaluate(trained.parent, "run", ["pgd4", "mim4"], seed=99)


@pytest.mark.parametrize("after", [0, 1, 4, 7])
def test_an_interrupted_evaluation_goes_on_to_the_same_verdicts(
    after, trained, other_seed, monkeypatch
):
    monkeypatch.setattr(journal, "FLUSH", -1.0)  # write whatever comes on
    with pytest.raises(KeyboardInterrupt):
        evaluate(
            trained.parent, "run", ["pgd4", "mim4"], seed=100 + after, display=Stop(batches=after)
        )
    cut = next(
        r for r in folders.every(trained.parent) if r.status == "interrupted" and r.kind == "eval"
    )
    resumed = evaluate(trained.parent, "run", ["pgd4", "mim4"], seed=100 + after)
    assert resumed.name == cut.id
    again = evaluate(trained.parent, "run", ["pgd4", "mim4"], seed=100 + after)
    a, b = (read_arrays(f / "examples.npz") for f in (resumed, again))
    assert other_seed != resumed
    for key in a:
        assert np.array_equal(a[key], b[key]), key
    costs = [records.read(f).attacks["pgd4"].forwards for f in (resumed, again)]
    assert costs[0] == costs[1]


@pytest.mark.usefixtures("warm_processes")
def test_a_killed_process_loses_no_finished_epoch(tmp_path):
    """SIGKILL while training; the folder resumes to the weights of an uninterrupted run."""
    args = ["train", "pgd-at:steps=2", "--epochs", "4", "--out", str(tmp_path), "--device", "cpu"]
    small = [flag for pair in SMALL[1:] for flag in ("--set", pair)]
    command = [sys.executable, "-m", "robustbench_cli", *args, *small]
    nowhere = subprocess.DEVNULL
    process = WarmProcess([*command, "--name", "cut"], stdout=nowhere, stderr=nowhere)
    state = tmp_path / "cut" / "state.safetensors"
    deadline = time.monotonic() + 120
    while not state.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    if records.read(tmp_path / "cut").status == "ok":
        pytest.skip("the run finished before it could be killed")
    workspace = Workspace(out=tmp_path, device="cpu")
    torch.set_num_threads(1)
    cut = train_command.resume_training("cut", workspace, Display())
    whole = train(tmp_path, config("pgd-at:steps=2", "train.epochs=4"), "whole")
    assert weights(cut) == weights(whole)


def test_two_processes_cannot_write_one_run(tmp_path):
    folder = folders.new(tmp_path, "x")
    with (
        recorder.locked(folder),
        pytest.raises(UserError, match="another process"),
        recorder.locked(folder),
    ):
        pass


def test_a_damaged_or_swapped_checkpoint_is_named(trained, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    workspace = Workspace(out=tmp_path, device="cpu")
    with pytest.raises(UserError, match=r"model\.safetensors' is damaged or was replaced"):
        find_model(Choice(run=str(copy)), workspace)
    path.unlink()
    with pytest.raises(UserError, match="is missing"):
        find_model(Choice(run=str(copy)), workspace)


def test_a_damaged_record_is_named(tmp_path, trained):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run.json").write_text('{"schema": 1, "id": ')
    with pytest.raises(UserError, match=r"bad/run\.json is damaged"):
        folders.every(tmp_path)
    newer = json.loads((trained / "run.json").read_text()) | {"schema": 99}
    (tmp_path / "bad" / "run.json").write_text(json.dumps(newer))
    with pytest.raises(UserError, match="schema 99"):
        records.read(tmp_path / "bad")
