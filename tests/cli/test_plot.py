"""What ``advbench plot`` says of mistakes."""

import sys

import pytest

from robustbench_cli.cli import completion, main


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*args):
        assert main(["plot", *args]) == 2
        said = capsys.readouterr()
        assert not said.out
        assert said.err.count("\n") == 1
        assert not list(tmp_path.iterdir())
        return said.err.removeprefix("advbench: ").strip()

    return run


def test_mistakes_cost_one_line_and_leave_nothing(refused):
    assert refused("histroy") == "unknown figure 'histroy'; did you mean 'history'?"
    assert (
        "known: certified-curve, eps, history, landscape, reconstructions, roc, steps, surface"
        in refused("zzz")
    )
    endings = "end it in one of .png, .svg, .pdf"
    assert refused("history", "--out", "a.gif") == f"--out 'a.gif': {endings}"
    assert refused("history", "--format", "gif") == "--format 'gif': choose png, svg, pdf"
    assert refused("history", "--format", "pdf", "--out", "a.svg") == (
        "--out 'a.svg' is no pdf: leave --format out, or mend one"
    )
    assert "is no folder to write to" in refused("history", "--out", "absent/a.png")
    assert "no parameter 'poinst'; did you mean 'points'" in refused("surface:poinst=3")
    assert "KIND" in refused()


def test_absent_runs_cost_one_line(refused):
    pytest.importorskip("matplotlib")
    assert refused("history").startswith("no finished train run in 'results'")
    assert refused("surface", "absent").startswith("no train run 'absent' in 'results'")
    assert refused("eps").startswith("no finished sweep over eps; record one: advbench eval")


def test_without_matplotlib_nothing_is_measured_in_vain(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said = refused("landscape")
    assert said == "pictures need matplotlib: pip install -e '.[plot]' where advbench is cloned"


def test_the_shell_is_offered_figures():
    assert [name for name, _ in completion.figures("s")] == ["steps", "surface"]
