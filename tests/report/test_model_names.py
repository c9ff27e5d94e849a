"""Names of models that no training run made: short, and different where the models are."""

import json
from dataclasses import replace

import pytest

from robustbench_cli.cli import main
from robustbench_cli.report.model_names import short_model_name, short_model_names
from robustbench_cli.report.robustness_table import rows

PGD = {"pgd20": ({"name": "pgd", "steps": 20}, 50)}


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("/home/me/nets/net.py:make", "net.py:make"),
        ("net.py:make", "net.py:make"),
        ("nets/net.py:make", "net.py:make"),
        ("hf:/data/photos-vit", "hf:photos-vit"),
        ("hf:owner/name", "hf:owner/name"),
        ("timm:vit_tiny_patch16_224", "timm:vit_tiny_patch16_224"),
        ("wrn-28-10", "wrn-28-10"),
        ("nets/exported.pt2", "exported.pt2"),
    ],
)
def test_only_the_end_of_a_path_is_shown(text, short):
    assert short_model_name(text) == short


def test_as_much_of_a_path_as_tells_models_apart():
    one, two, three = "/a/x/net.py:make", "/a/y/net.py:make", "/b/other.py:make"
    assert short_model_names([one, two, three, one]) == {
        one: "x/net.py:make",
        two: "y/net.py:make",
        three: "other.py:make",
    }


@pytest.fixture
def own(trained, evaluated):
    def judged(path, **changes):
        run = evaluated(trained(), PGD, **changes)
        return replace(
            run, parent=None, subject=path, config=run.config | {"model": {"name": path}}
        )

    return judged


def test_a_row_of_an_own_model_names_it_once(own, trained, evaluated):
    path = "/home/somebody/a/long/way/to/nets/net.py:make"
    base = trained()
    found = rows([base, evaluated(base, PGD, id="t"), own(path, id="e", weights="f" * 64)])
    shown = [(row.facts["defense"].text, row.facts["model"].text) for row in found]
    assert ("net.py:make", "-") in shown
    assert path not in str(shown)


def test_rows_of_files_of_one_name_are_told_apart(own):
    paths = ["/a/x/net.py:make", "/a/y/net.py:make"]
    found = rows([own(path, id=path[3], weights=path[3] * 64) for path in paths])
    assert sorted(row.facts["defense"].text for row in found) == ["x/net.py:make", "y/net.py:make"]


def test_the_list_of_runs_has_the_short_name(own, kept, tmp_path, capsys):
    kept(tmp_path, own("/a/long/way/net.py:make", id="e"))
    assert main(["list", "runs", "--results", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert " net.py:make" in shown
    assert "/a/long" not in shown
    assert main(["list", "runs", "--json", "--results", str(tmp_path)]) == 0
    (outcome,) = json.loads(capsys.readouterr().out)
    assert outcome["subject"] == "/a/long/way/net.py:make"  # data has all of it
