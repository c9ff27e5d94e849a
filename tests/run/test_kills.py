"""An evaluation may be killed at any moment, by anything, and ends up the same."""

import contextlib
import os
import random
import signal
import time
import traceback
from pathlib import Path

import numpy as np
import pytest

from robustbench_cli import records
from robustbench_cli.cli.evaluating import Asked, request
from robustbench_cli.engine import journal
from robustbench_cli.run.display import Display
from robustbench_cli.run.evaluate import run

KILLS = 30
ATTACKS = ["pgd5:restarts=2", "ensemble:apgd-ce-5/fab-t-2/square20", "fab-t:steps=2,targets=2"]


def asked(out, file, name):
    return Asked(
        attacks=ATTACKS,
        run=None,
        model=f"{file}:make",
        weights=None,
        dataset="digits",
        n=40,
        norm=None,
        eps="0.1",
        restarts=None,
        eot=None,
        last_iterate=False,
        precision=None,
        batch_size=16,
        seed=None,
        device="cpu",
        data_dir=Path(),
        out=out,
        name=name,
        changes=[],
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


def finished(folder):
    return (folder / "run.json").exists() and records.read(folder).status == "ok"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_thirty_random_kills_change_nothing(tmp_path, net_file, monkeypatch):
    monkeypatch.setattr(journal, "FLUSH", 0.02)
    began = time.perf_counter()
    whole = run(request(asked(tmp_path / "a", net_file, "whole"), "eval"), Display())
    usual = time.perf_counter() - began
    draw, kills, lives = random.Random(0), 0, 0
    while kills < KILLS:
        lives += 1
        folder = tmp_path / "b" / f"life-{lives}"
        status, here = 9, 0
        # A run that is killed again and again gets there, if nothing is lost but the last moment.
        while os.WIFSIGNALED(status) and kills < KILLS:
            child = os.fork()
            if not child:
                try:
                    run(request(asked(tmp_path / "b", net_file, folder.name), "eval"), Display())
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
            time.sleep(draw.uniform(0, usual / 3))
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            status = os.waitpid(child, 0)[1]
            kills += os.WIFSIGNALED(status)
            assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0
            here += 1
            if finished(folder):
                break  # killed on its way out, when all was said
        if not finished(folder):
            run(request(asked(tmp_path / "b", net_file, folder.name), "eval"), Display())
        assert finished(folder)
        assert figures(folder) == figures(whole), here
        mine, theirs = verdicts(folder), verdicts(whole)
        assert mine.keys() == theirs.keys()
        for key in mine:
            # Verdicts are equal; the last bit of a distance depends on who shared the batch.
            assert np.allclose(mine[key], theirs[key], rtol=1e-4, atol=0), key
