"""An attack or a defense is one new file: those that the documentation shows run as they are."""

import json
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ("adding-an-attack.md", "adding-a-defense.md")
BLOCK = re.compile(r"(?:In `(robustbench_cli/\w+/\w+\.py)`:\n\n)?```python\n(.*?)```", re.DOTALL)
SHOWN = {
    path: code for page in PAGES for path, code in BLOCK.findall((ROOT / "docs" / page).read_text())
}


SERVER = """
import json, os, sys, traceback
import pandas, pydantic, scipy.special, torch, torch._dynamo, typer

for line in sys.stdin:
    words, out, err, environments = json.loads(line)
    children = []
    for environment in environments:
        child = os.fork()
        if not child:
            code = 1
            try:
                os.environ.update(environment)
                for number, name in ((1, out), (2, err)):
                    os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
                from robustbench_cli.cli import main
                code = int(main(words))
                sys.stdout.flush()
            except BaseException:
                traceback.print_exc()
            sys.stderr.flush()
            os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    print(codes, flush=True)
"""
"""Runs each command in processes of its own, which have imported torch and not yet this package:
one for each environment."""


@dataclass(frozen=True)
class Checkout:
    """A copy of the package in a folder, and a process that runs its commands there."""

    folder: Path
    server: subprocess.Popen


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("robustbench_cli", "presets"):
        shutil.copytree(ROOT / name, folder / name)
    for path, code in SHOWN.items():
        assert not (folder / path).exists(), f"{path} is there already: show another example"
        (folder / path).write_text(code)
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(folder),
    )
    with server:
        yield Checkout(folder, server)
        server.stdin.close()


def environment(folder):
    return {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(folder)}


def advbench(checkout, *args, environments=({},)):
    out, err = (checkout.folder / name for name in ("out.txt", "err.txt"))
    checkout.server.stdin.write(json.dumps([args, str(out), str(err), environments]) + "\n")
    checkout.server.stdin.flush()
    codes = json.loads(checkout.server.stdout.readline())
    assert codes == [0] * len(environments), err.read_text()
    return out.read_text()


def two_environments():
    """The environments that ``torchrun`` gives two processes; it is run in tests/commands."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    return [
        {**told, "RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": "2"} for rank in ("0", "1")
    ]


def record(checkout, name):
    return json.loads((checkout.folder / "results" / name / "run.json").read_text())


@pytest.fixture(scope="module")
def trained(checkout):
    limit = ["--epochs", "2", "--set", "train.limit=300"]
    advbench(checkout, "train", "noise-training+focal+awp", *limit, "--name", "noise")
    return checkout


def test_every_block_of_code_is_a_file_of_one_method():
    assert all(SHOWN)  # a block without a path would not be run
    kinds = [path.split("/")[1] for path in SHOWN]
    assert kinds.count("attacks") == kinds.count("defenses") == 3
    for path, code in SHOWN.items():
        assert code.startswith('"""'), path
        assert "https://" in code, path
        assert len(code.splitlines()) <= 60, path
        assert f'"{Path(path).stem.replace("_", "-")}"' in code, path


def test_one_new_file_each_is_listed_and_explained(checkout):
    listed = advbench(checkout, "list")
    for path in SHOWN:
        assert Path(path).stem.replace("_", "-") in listed
    assert "tries" in advbench(checkout, "show", "random-signs")
    assert "focusing" in advbench(checkout, "show", "focal")


def test_new_attacks_are_run_and_counted(trained):
    names = ["random-signs7", "ce-then-margin6", "halving6"]
    asked = [word for name in names for word in ("--attack", name)]
    out = advbench(trained, "eval", *asked, "--run", "noise", "--n", "50", "--name", "judged")
    assert all(name in out for name in names)
    run = record(trained, "judged")
    outcome = run["attacks"]["random-signs7"]
    # Seven corners at most, the clean image, a confirmation and the verdict; no gradient.
    assert 50 < outcome["forwards"] <= 50 * 10
    assert outcome["backwards"] == 0
    for name in names[1:]:
        assert run["attacks"][name]["robust_accuracy"] < run["clean_accuracy"]
    assert "noise-training+focal+awp" in advbench(trained, "report")


def test_new_attacks_may_be_swept(trained):
    """One is read off its longest run and one is not: both end as a run by itself does."""
    names = ["halving", "ce-then-margin"]
    asked = [word for name in names for word in ("--attack", name)]
    common = ["--run", "noise", "--n", "50", "--precision", "exact"]
    advbench(trained, "eval", *asked, *common, "--sweep", "steps=2,4", "--name", "swept")
    alone = [f"--attack={name}{steps}" for name in names for steps in (2, 4)]
    advbench(trained, "eval", *alone, *common, "--name", "alone")
    swept, single = (
        {
            (each["params"]["name"], each["params"]["steps"]): (each["correct"], each["forwards"])
            for each in record(trained, name)["attacks"].values()
        }
        for name in ("swept", "alone")
    )
    assert len(swept) == 4
    assert swept == single


SCHEDULE = '''"""A rate that never changes (Nobody, 2026), https://example.org/half."""

from dataclasses import dataclass

from robustbench_cli.optim import SCHEDULES, Schedule


@SCHEDULES.register("half")
@dataclass(frozen=True, kw_only=True)
class Half(Schedule):
    """Train with half of the full rate throughout."""

    def factor(self, t: float) -> float:
        return 0.5
'''

TRANSFORM = '''"""Negatives (Nobody, 2026), https://example.org/negative."""

from dataclasses import dataclass

from robustbench_cli.transforms import TRANSFORMS, Transform


@TRANSFORMS.register("negative")
@dataclass(frozen=True, kw_only=True)
class Negative(Transform):
    """Exchange black and white."""

    def __call__(self, x):
        return 1 - x
'''


def test_a_schedule_and_a_transform_are_one_new_file_each(trained):
    (trained.folder / "robustbench_cli/optim/half.py").write_text(SCHEDULE)
    (trained.folder / "robustbench_cli/transforms/negative.py").write_text(TRANSFORM)
    assert "half of the full rate" in advbench(trained, "list", "schedules")
    assert "https://example.org/negative" in advbench(trained, "show", "negative")
    limit = ["--epochs", "1", "--set", "train.limit=64"]
    chosen = ["--set", "schedule.name=half"]
    advbench(trained, "train", "standard", *limit, *chosen, "--name", "halved")
    assert record(trained, "halved")["config"]["schedule"]["name"] == "half"
    views = ["--transform", "identity", "--transform", "negative"]
    joint = ["joint", "--run", "noise", *views, "--n", "16", "--name", "two-views"]
    assert "negative" in advbench(trained, *joint)


ANSWERED = (
    "import torch\n\ndef one():\n    return torch.nn.Sequential(torch.nn.Flatten(), Zero())\n"
)
ZERO = """

class Zero(torch.nn.Module):
    def forward(self, x):
        return x[:, :10] * 1e-3 + torch.eye(10)[3]
"""


def test_a_check_is_one_new_file(trained, tmp_path):
    page = (ROOT / "docs/adding-others.md").read_text()
    ((path, code),) = BLOCK.findall(page)
    (trained.folder / path).write_text(code)
    assert "More than one class" in advbench(trained, "list", "checks")
    assert "https://example.org/one" in advbench(trained, "show", "one-answer")
    (tmp_path / "one.py").write_text(ANSWERED + ZERO)
    model = ["--model", f"{tmp_path / 'one.py'}:one", "--dataset", "digits", "--n", "20"]
    out = advbench(trained, "eval", *model, "--attack", "pgd2", "--name", "one-answer")
    assert "20 of 20 images are given the same class" in out
    assert record(trained, "one-answer")["attacks"]["pgd2"]["trust"] == "withheld"


@pytest.mark.slow
def test_a_mean_over_the_batch_is_the_same_in_two_processes(trained):
    limit = ["--epochs", "1", "--batch-size", "64", "--set", "train.limit=64"]
    plain = [
        "--set",
        "optimizer.name=sgd",
        "--set",
        "train.probe=0",
        "--lr",
        "0.05",
        "--precision",
        "float32",
    ]
    # From trained weights: in the inner attack some losses rise much further than others.
    words = ["train", "rise-weights:steps=3", *limit, *plain, "--init", "noise", "--device", "cpu"]
    advbench(trained, *words, "--name", "one")
    advbench(trained, *words, "--name", "two", environments=two_environments())
    one, two = (record(trained, name) for name in ("one", "two"))
    assert two["environment"]["processes"] == 2
    assert one["history"][0]["loss"] == pytest.approx(two["history"][0]["loss"], rel=1e-5)
