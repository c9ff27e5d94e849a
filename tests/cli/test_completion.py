"""The shell is offered names, and nothing heavy is imported for it."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from robustbench_cli.cli import completion
from robustbench_cli.config import catalogue, presets

ROOT = Path(__file__).parents[2]


def test_nothing_heavy_is_imported():
    code = (
        "import sys; from robustbench_cli.cli import completion; completion.defenses('trades+');"
        "sys.exit(str({'torch', 'pydantic', 'pandas', 'numpy'} & set(sys.modules) or ''))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.stderr.strip() == ""


def words(found):
    return [word for word, _ in found]


def test_the_shell_is_offered_names_with_their_meaning():
    known = [name for each in catalogue.scan("attacks") for name in (each.name, *each.aliases)]
    assert words(completion.attacks("pg")) == sorted(n for n in known if n.startswith("pg"))
    assert {"pg-ours", "pgd"} <= {*words(completion.attacks("pg"))}
    assert words(completion.models("preact")) == [
        "preact-resnet-18",
        "preactresnet18",
        "preact-resnet18",
    ]
    assert words(completion.datasets("cifar-")) == ["cifar-10", "cifar-100"]
    assert words(completion.suites("pa")) == ["paper"]
    assert words(completion.presets("")) == presets.preset_names()
    assert {"trades", "pgd", "wrn", "digits", "paper"} <= set(words(completion.complete_names("")))
    assert completion.kinds("r") == ["retrieval-attacks", "runs"]
    assert dict(completion.attacks("fgsm"))["fgsm"].startswith("A single step of size eps")


def test_after_an_objective_only_modifiers_are_offered():
    assert "trades" in words(completion.defenses(""))
    assert words(completion.defenses("trades+aw")) == ["trades+awp"]
    assert words(completion.defenses("trades:beta=1+awp+h")) == ["trades:beta=1+awp+he"]
    assert words(completion.defenses("trades+awp+aw")) == []
    assert "awp+trades" in words(completion.defenses("awp+t"))


def test_runs_are_offered_from_the_folder_that_was_named(tmp_path, monkeypatch):
    shipped = "results/reference/study"
    for place, run in (("results", "mine"), ("other", "theirs"), (shipped, "shipped")):
        (tmp_path / place / run).mkdir(parents=True)
        (tmp_path / place / run / "run.json").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ADVBENCH_RESULTS", raising=False)
    nothing = SimpleNamespace(params={})
    assert completion.runs(nothing, "") == ["mine"]
    assert completion.runs(nothing, "x") == []
    assert completion.runs(SimpleNamespace(params={"out": Path("other")}), "") == ["theirs"]
    assert completion.runs(SimpleNamespace(params={"results": shipped}), "") == ["shipped"]
    monkeypatch.setenv("ADVBENCH_RESULTS", "other")
    assert completion.runs(nothing, "") == ["theirs"]


def test_the_shell_completes_a_command_line():
    env = os.environ | {
        "_ADVBENCH_COMPLETE": "complete_bash",
        "COMP_WORDS": "advbench train trades+aw",
        "COMP_CWORD": "2",
    }
    code = (
        "from robustbench_cli.cli import app; import typer;"
        "typer.main.get_command(app)(prog_name='advbench')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=env, check=False
    )
    assert "trades+awp" in done.stdout
