"""docs/python-api.md: every block runs as it stands, and the gate opens and shuts as it says."""

import re
import shlex
import sys
from pathlib import Path

import pytest
from warm_processes import warm_run

from robustbench_cli.cli import main

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "python-api.md").read_text()
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", PAGE, re.DOTALL)
(GATE,) = [text for kind, text in BLOCKS if kind == "python" and "def test_" in text]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with what the page's commands leave."""
    folder = tmp_path_factory.mktemp("reader")
    for kind, text in BLOCKS:
        if kind == "sh":
            for line in text.splitlines():
                words = shlex.split(line)
                assert words[0] == "advbench"
                assert main([*words[1:], "--out", str(folder / "results"), "--quiet"]) == 0
    return folder


def test_the_page_runs_from_top_to_bottom(workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    namespace = {}
    for number, (kind, text) in enumerate(BLOCKS):
        if kind == "python" and text != GATE:
            exec(compile(text, f"block {number}", "exec"), namespace)
    result = namespace["result"]
    assert result.folder.parent == Path("results")
    shown = capsys.readouterr().out
    assert "pgd20" in shown
    assert namespace["found"].x.shape == (8, 1, 8, 8)


def test_the_page_says_what_the_package_has():
    for name in ("evaluate", "attack", "load_run", "Threat", "UserError", "RunError"):
        assert f"`{name}" in PAGE


def gate(folder):
    """Run pytest on the gate as a user would, in a folder with a run in it."""
    (folder / "test_robustness.py").write_text(GATE)
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "test_robustness.py"]
    return warm_run([sys.executable, *command], cwd=folder)


@pytest.mark.usefixtures("warm_processes")
def test_the_gate_lets_a_robust_model_through(workplace):
    done = gate(workplace)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


@pytest.mark.usefixtures("warm_processes")
def test_the_gate_stops_a_model_that_is_not_robust(tmp_path):
    out = ["--name", "pgd-at-digits-s0", "--out", str(tmp_path / "results"), "--quiet"]
    assert main(["train", "standard", "--epochs", "5", *out]) == 0
    done = gate(tmp_path)
    assert done.returncode == 1, done.stdout
    assert "AssertionError: robustness is lost" in done.stdout
    assert re.search(r"pgd20 +[0-3]\d\.\d\d%", done.stdout)  # the table says how far it is
