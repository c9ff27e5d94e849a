"""Runs are found by their names."""

import pytest

from robustbench_cli import folders
from robustbench_cli.errors import UserError


@pytest.fixture
def results(tmp_path, trained, kept):
    kept(tmp_path, trained(id="trades-mnist-s0"))
    kept(tmp_path / "demo", trained(id="trades"))
    kept(tmp_path / "family", trained(id="trades-awp-s0"), trained(id="mart-s0"))
    return tmp_path


def test_a_whole_id_is_its_run_even_where_it_is_a_part_of_another_s(results):
    assert folders.named("trades", results, "train") == results / "demo" / "trades"
    assert folders.named("mart-s0", results, "train") == results / "family" / "mart-s0"
    assert folders.named("awp", results, "train") == results / "family" / "trades-awp-s0"
    with pytest.raises(UserError, match="run 'trades-' is ambiguous"):
        folders.named("trades-", results, "train")


def test_a_whole_id_in_two_folders_is_ambiguous(results, trained, kept):
    kept(results / "other", trained(id="trades"))
    with pytest.raises(UserError, match="run 'trades' is ambiguous"):
        folders.named("trades", results, "train")
