"""What ci.md shows runs as it stands, on a small net."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from robustbench_cli.cli import main

PAGE = (Path(__file__).parents[2] / "docs" / "ci.md").read_text()
NET = """
import torch
from sklearn.datasets import load_digits
from torch import nn

digits = load_digits()
x = torch.tensor(digits.images / 16, dtype=torch.float32)[:, None]
y = torch.tensor(digits.target)

def held_out_images():
    return x[1697:], y[1697:]

def make():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(100):
        near = x + 0.05 * torch.empty_like(x).uniform_(-1, 1).sign()
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(near.clamp(0, 1)), y).backward()
        optimizer.step()
    return net.eval()
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a net.py, which tests and jobs import."""
    (tmp_path / "net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    # Another test of this process may have loaded a file of the same name.
    monkeypatch.delitem(sys.modules, "net", raising=False)
    yield tmp_path
    sys.modules.pop("net", None)


def test_the_pytest_example_passes(project):
    (lines,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    known = {}
    exec(compile(lines, "ci.md", "exec"), known)
    (check,) = [value for name, value in known.items() if name.startswith("test_")]
    check()


def test_the_job_passes_and_keeps_its_numbers(project, capsys):
    (job,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (line,) = re.findall(r"- run: (advbench .*)", job)
    command, _, file = line.partition(" > ")
    assert f"path: {file}" in job
    assert main([*shlex.split(command)[1:], "-q"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert [gate["passed"] for gate in outcome["gates"]] == [True, True]
    assert outcome["attacks"]["pgd20"]["trust"] == "sound"


def test_every_entry_of_an_outcome_is_described(project, capsys):
    words = ["train", "standard", "--epochs", "4", "--set", "train.limit=400", "--json", "-q"]
    assert main([*words, "--set", "train.probe=0", "--name", "net"]) == 0
    trained = json.loads(capsys.readouterr().out)
    assert main(["eval", "--attack", "fgsm", "--n", "8", "--json", "-q", "--fail-under", "0"]) == 0
    judged = json.loads(capsys.readouterr().out)
    described = {*re.findall(r"`(\w+)`", PAGE.partition("## JSON")[2])}
    assert {*trained, *judged} <= described
