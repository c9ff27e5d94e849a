"""``torchrun --nproc-per-node 2 -m robustbench_cli -- train``: one run by two processes.

Only the first test starts three interpreters; the others fork them, as torch is there already.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from warm_processes import WarmProcess

from robustbench_cli.cli import main
from robustbench_cli.runs import records

ROOT = Path(__file__).parents[2]
LAUNCHER = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
TRAIN = ["--device", "cpu", "--epochs", "2", "--batch-size", "64", "--set", "train.probe=50"]


def start(command, popen=WarmProcess):
    """The command line in two processes, which know of no folder that it does not name."""
    known = {key: value for key, value in os.environ.items() if not key.startswith("ADVBENCH_")}
    return popen(
        [sys.executable, *LAUNCHER, "-m", "robustbench_cli", "--", *command],
        env={**known, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(process):
    """What it printed, and what it said on standard error that is ours."""
    out, err = process.communicate(timeout=240)
    return out, [line for line in err.splitlines() if line.startswith("advbench:")]


def weights(folder):
    return load_file(folder / "model.safetensors")


def test_two_processes_train_what_one_does(tmp_path):
    # One update of plain SGD: later ones make much of what is rounding noise, as another number of
    # threads would, too.
    once = ["--epochs", "1", "--set", "train.limit=64", "--set", "optimizer.name=sgd", "--quiet"]
    once += ["--precision", "float32"]
    command = ["train", "pgd-at:steps=3+awp:warmup=0+ema:decay=0.5", *TRAIN, *once]
    command += ["--norm", "L2", "--lr", "0.05", "--out", str(tmp_path)]
    process = start([*command, "--name", "two"], subprocess.Popen)
    out, complaints = said(process)
    assert process.returncode == 0, complaints
    assert out.split() == [str(tmp_path / "two")]  # one process speaks
    assert main([*command, "--name", "one"]) == 0
    one, two = (records.read(tmp_path / name) for name in ("one", "two"))
    assert two.environment["processes"] == 2
    (mine,), (theirs,) = one.history, two.history
    assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
    assert mine["train_clean"] == pytest.approx(theirs["train_clean"], abs=0.021)  # one image of 50
    mine, theirs = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert mine.keys() == theirs.keys()
    for key, value in mine.items():
        apart = (value - theirs[key]).double().norm()
        assert apart <= 1e-4 * value.double().norm(), key


@pytest.mark.usefixtures("warm_processes")
def test_an_interrupted_run_goes_on_in_two_processes(tmp_path, two_processes):
    common = ["--quiet", "--out", str(tmp_path)]
    command = ["train", "trades:steps=3", *TRAIN, *common, "--set", "train.limit=320"]
    assert two_processes(lambda: main([*command, "--name", "whole"])) == [0, 0]
    process = start([*command, "--name", "again"])
    folder = tmp_path / "again"
    while not (folder / "state.safetensors").is_file():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, complaints = said(process)
    assert process.returncode != 0
    assert complaints == [
        f"advbench: interrupted; what is done is kept. Go on with: advbench train --resume again "
        f"--out {tmp_path}"
    ]
    assert records.read(folder).status == "interrupted"
    resumed = start(["train", "--resume", "again", "--device", "cpu", *common])
    assert said(resumed) == (f"{folder}\n", [])
    assert len(records.read(folder).history) == 2
    torch.testing.assert_close(weights(folder), weights(tmp_path / "whole"), rtol=0, atol=0)


@pytest.mark.usefixtures("warm_processes")
@pytest.mark.parametrize(
    ("options", "line", "status"),
    [
        (["standard", "--lr", "1e30"], "the training loss is not finite in epoch 1", "failed"),
        (["standrad"], "advbench: unknown defense 'standrad'; did you mean 'standard'", None),
    ],
)
def test_what_goes_wrong_is_said_once(tmp_path, options, line, status):
    place = ["--quiet", "--out", str(tmp_path), "--name", "bad"]
    command = ["train", *options, *TRAIN, "--set", "train.limit=128", *place]
    process = start(command)
    out, complaints = said(process)
    assert process.returncode != 0
    assert out == ""
    assert len(complaints) == 1
    assert line in complaints[0]
    found = [records.read(folder).status for folder in tmp_path.iterdir()]
    assert found == [status] * bool(status)
