"""The lines of Python that the README shows do what it says, on a model trained in seconds."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from robustbench_cli.attacks.autoattack import AutoAttack
from robustbench_cli.cli import main
from robustbench_cli.data.digits import Digits

README = (Path(__file__).parents[2] / "README.md").read_text()
SHORT = {"apgd-ce": {"steps": 10}, "apgd-t": {"steps": 10, "targets": 2}} | {
    "fab-t": {"steps": 5, "targets": 2},
    "square": {"queries": 50},
}
"""AutoAttack cut down: its members at full length run in tests/attacks."""


@pytest.fixture
def short_autoattack(monkeypatch):
    whole = AutoAttack.members

    def members(self, *args):
        return {name: replace(each, **SHORT[name]) for name, each in whole(self, *args).items()}

    monkeypatch.setattr(AutoAttack, "members", members)


@pytest.mark.usefixtures("short_autoattack")
def test_the_python_lines_of_the_readme_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    few = ["--epochs", "4", "--set", "train.limit=500", "--set", "train.probe=0", "--quiet"]
    assert main(["train", "trades:steps=2", *few, "--out", "results/demo", "--name", "trades"]) == 0
    (lines,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(lines.strip().splitlines()) <= 8
    digits = Digits().load("test", tmp_path)
    known = {"x": digits.images(slice(8)), "y": digits.y[:8]}
    capsys.readouterr()
    exec(compile(lines, "README.md", "exec"), known)
    clean, robust = map(float, capsys.readouterr().out.split())
    assert 0 <= robust <= clean <= 1
    result = known["result"]
    assert [*result.robust_accuracy] == ["pgd20", "autoattack"]
    standing = result.clean_correct & ~known["broken"]
    assert standing.mean() == pytest.approx(result.robust_accuracy["autoattack"])
    assert (known["x_adv"] - known["x"]).abs().max() <= 8 / 255 + 1e-6
