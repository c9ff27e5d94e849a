"""An evaluation may be killed at any moment, by anything, and ends up the same."""

import os
import random
import signal
import time
import traceback
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robustbench_cli.cli.eval_options import EvalOptions, eval_request
from robustbench_cli.commands.display import Display
from robustbench_cli.commands.evaluate import run_evaluation
from robustbench_cli.core.errors import UserError
from robustbench_cli.evaluation import journal
from robustbench_cli.runs import records

KILLS = 9
ATTACKS = ["pgd5:restarts=2", "ensemble:apgd-ce-5/fab-t-2/square20", "fab-t:steps=2,targets=6"]


def asked(out, file, name):
    return EvalOptions(
        attack=ATTACKS,
        model=f"{file}:make",
        dataset="digits",
        n=40,
        eps="0.1",
        batch_size=8,
        device="cpu",
        data_dir=Path(),
        out=out,
        name=name,
    )


def verdicts(folder):
    with np.load(folder / "examples.npz") as arrays:
        return {key: arrays[key] for key in arrays.files}


def figures(folder):
    """What the record says, but for the time it took."""
    run_ = records.read(folder)
    return (
        run_.clean_accuracy,
        run_.worst_case_accuracy,
        {label: (o.correct, o.robust_accuracy, o.broken_by) for label, o in run_.attacks.items()},
    )


def written(folder):
    """How many times it has written down what it found."""
    return len([*(folder / "journal").glob("*.npz")])


def begun(words):
    """A process that evaluates: its id."""
    child = os.fork()
    if not child:
        try:
            run_evaluation(eval_request(words, "eval"), Display())
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_random_kills_change_nothing(tmp_path, net_file, monkeypatch):
    monkeypatch.setattr(journal, "FLUSH", -1.0)  # write whatever comes on
    with monkeypatch.context() as patch:
        patch.setattr(journal.Journal, "drop", lambda _self: None)
        whole = run_evaluation(
            eval_request(asked(tmp_path / "a", net_file, "whole"), "eval"), Display()
        )
    files = written(whole)
    draw, folder, reached = random.Random(0), tmp_path / "b" / "again", []
    # All along the way, and as it starts: whoever has come that far already is killed at once.
    # One that goes on where another stopped has fuller batches, and fewer files to write.
    for goal in sorted(draw.randrange(3 * files // 4) for _ in range(KILLS)):
        child, started = begun(asked(tmp_path / "b", net_file, folder.name)), time.perf_counter()
        while written(folder) < goal and time.perf_counter() < started + 60:
            time.sleep(0.004)
        time.sleep(draw.uniform(0, 0.005))
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        assert os.WIFSIGNALED(status), "it was done before it could be killed"
        reached.append(written(folder))
    assert reached == sorted(reached)  # nothing that was written is lost
    assert len({*reached}) > KILLS / 3
    columns = {path.name.partition("-")[0] for path in (folder / "journal").iterdir()}
    assert columns >= {"0", "1", "2", "3"}  # the clean pass, then each attack
    assert records.read(folder).status != "ok"
    run_evaluation(eval_request(asked(tmp_path / "b", net_file, folder.name), "eval"), Display())
    assert records.read(folder).status == "ok"
    assert figures(folder) == figures(whole)
    mine, theirs = verdicts(folder), verdicts(whole)
    assert mine.keys() == theirs.keys()
    for key in mine:
        # Verdicts are equal; the last bit of a distance depends on who shared the batch.
        assert np.allclose(mine[key], theirs[key], rtol=1e-4, atol=0), key


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_only_the_same_settings_of_a_model_go_on_with_a_killed_evaluation(
    tmp_path, net_file, monkeypatch
):
    monkeypatch.setattr(journal, "FLUSH", -1.0)
    words = replace(asked(tmp_path, net_file, "one"), n=16, attack=["pgd5"])
    words = replace(words, mean="0.1", std="0.9")
    child = begun(words)
    while not written(tmp_path / "one"):
        time.sleep(0.004)
    os.kill(child, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    before = records.read(tmp_path / "one")
    for other in ({"mean": "0.2"}, {"mean": None, "std": None}):
        with pytest.raises(UserError, match="one' exists: choose another"):
            run_evaluation(eval_request(replace(words, **other), "eval"), Display())
        assert records.read(tmp_path / "one") == before
    run_evaluation(eval_request(words, "eval"), Display())
    assert records.read(tmp_path / "one").status == "ok"
    assert len(records.read(tmp_path / "one").resumed) == 1
    whole = run_evaluation(eval_request(replace(words, name="whole"), "eval"), Display())
    assert figures(tmp_path / "one") == figures(whole)
