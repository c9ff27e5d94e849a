"""Runs are found by their names."""

import pytest

from robustbench_cli.core.errors import UserError
from robustbench_cli.runs import folders


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
