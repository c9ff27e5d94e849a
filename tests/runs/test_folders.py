"""Runs are found by their names."""

import subprocess
from pathlib import Path

import pytest

from robustbench_cli.core.errors import UserError
from robustbench_cli.runs import folders

ROOT = Path(__file__).parents[2]


@pytest.fixture
def results(tmp_path, trained, kept):
    kept(tmp_path, trained(id="trades-mnist-s0"))
    kept(tmp_path / "demo", trained(id="trades"))
    kept(tmp_path / "family", trained(id="trades-awp-s0"), trained(id="mart-s0"))
    return tmp_path


def test_a_whole_id_is_its_run_even_where_it_is_a_part_of_another_s(results):
    assert folders.find_run("trades", results, "train") == results / "demo" / "trades"
    assert folders.find_run("mart-s0", results, "train") == results / "family" / "mart-s0"
    assert folders.find_run("awp", results, "train") == results / "family" / "trades-awp-s0"
    with pytest.raises(UserError, match="run 'trades-' is ambiguous"):
        folders.find_run("trades-", results, "train")


def test_a_whole_id_in_two_folders_is_ambiguous(results, trained, kept):
    kept(results / "other", trained(id="trades"))
    with pytest.raises(UserError, match="run 'trades' is ambiguous"):
        folders.find_run("trades", results, "train")


def test_runs_of_one_id_are_called_by_their_place(tmp_path, trained, evaluated, kept):
    one, two = trained("trades", id="base"), trained("mart", id="base")
    asked = {"fgsm": ({"name": "fgsm"}, 50)}
    kept(tmp_path / "one", one, evaluated(one, asked, id="base-eval"))
    kept(tmp_path / "two", two, evaluated(two, asked, id="other"))
    # An evaluation that lies elsewhere is of the run whose weights it met.
    kept(tmp_path, evaluated(one, asked, id="top"), trained("alp", id="alone"))
    found = {run.id: run for run in folders.every(tmp_path)}
    trainings = {id_: run.subject for id_, run in found.items() if run.kind == "train"}
    assert trainings == {"one/base": "trades", "two/base": "mart", "alone": "alp"}
    parents = {id_: run.parent for id_, run in found.items() if run.kind == "eval"}
    assert parents == {"base-eval": "one/base", "other": "two/base", "top": "one/base"}
    assert folders.find_run("two/base", tmp_path, "train") == tmp_path / "two" / "base"


def test_shipped_records_are_found_only_where_their_folder_is_named(tmp_path, trained, kept):
    study = tmp_path / "results/reference/study"
    kept(tmp_path / "results", trained(id="mine"))
    kept(study, trained(id="mine"), trained(id="theirs"))
    assert [run.id for run in folders.every(tmp_path / "results")] == ["mine"]
    assert folders.find_run(None, tmp_path / "results", "train").name == "mine"  # not the latest
    assert folders.find_run("mine", tmp_path / "results", "train").parent.name == "results"
    with pytest.raises(UserError, match="no train run 'theirs'"):
        folders.find_run("theirs", tmp_path / "results", "train")
    assert {run.id for run in folders.every(study)} == {"mine", "theirs"}
    shipped = folders.every(study.parent)
    assert {run.id for run in shipped} == {"mine", "theirs"}
    for name in ("reference/study/theirs", str(study / "theirs")):
        assert folders.find_run(name, tmp_path / "results", "train") == study / "theirs"


def test_the_project_ships_records_below_results_reference_only():
    asked = ["git", "ls-files", "--", "results"]
    done = subprocess.run(asked, capture_output=True, text=True, cwd=ROOT, check=False)
    shipped = [Path(name) for name in done.stdout.splitlines()]
    if not shipped:
        pytest.skip("this is no checkout")
    assert {path.parts[:2] for path in shipped} == {("results", "reference")}
    assert {path.name for path in shipped} == {"run.json"}
    for name, ignored in (
        ("results/mine/run.json", True),
        ("results/at-family-digits/trades-s0/run.json", True),
        ("results/reference/study/run/run.json", False),
        ("results/reference/study/run/model.safetensors", True),
    ):
        asked = ["git", "check-ignore", "--quiet", "--no-index", name]
        assert (subprocess.run(asked, cwd=ROOT, check=False).returncode == 0) is ignored, name
