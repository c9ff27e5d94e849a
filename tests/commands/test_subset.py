"""Which test images an evaluation counts, and in which order."""

import json

import numpy as np
import pytest
import torch

from robustbench_cli.cli import main
from robustbench_cli.commands.subset import chosen_subset
from robustbench_cli.config.schema import Subset
from robustbench_cli.core.errors import UserError
from robustbench_cli.data import Split

LABELS = torch.tensor([0, 0, 0, 1, 2, 2, 0, 1, 2, 0])
IMAGES = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1)
TEST = Split(IMAGES, LABELS, ("ant", "bee", "cat"))


def chosen(**asked) -> list[int]:
    found = chosen_subset(TEST, Subset(**asked))
    assert found.ids.tolist() == found.x.flatten().tolist()
    return found.ids.tolist()


def test_the_whole_is_left_as_it_is():
    assert chosen_subset(TEST, Subset()) is TEST
    assert TEST.ids.tolist() == list(range(10))


def test_classes_are_named_or_numbered():
    assert chosen(classes=("bee",)) == chosen(classes=("1",)) == [3, 7]
    assert chosen(classes=("2", "bee")) == [3, 4, 5, 7, 8]
    with pytest.raises(UserError, match="--only-classes: no class 'bea'; did you mean 'bee'"):
        chosen(classes=("bea",))
    with pytest.raises(UserError, match="no class '3'"):
        chosen(classes=("3",))


def test_a_class_without_an_image_is_refused():
    empty = Split(IMAGES, LABELS, ("ant", "bee", "cat", "dog"))
    with pytest.raises(UserError, match="--only-classes dog: there is no test image of it"):
        chosen_subset(empty, Subset(classes=("ant", "dog")))


def test_classes_take_turns():
    rows = chosen(balanced=True)
    assert LABELS[rows].tolist() == [0, 1, 2, 0, 1, 2] or len(rows) == 6
    for n in range(1, 7):
        counts = torch.bincount(LABELS[rows[:n]], minlength=3)
        assert counts.max() - counts.min() <= 1
    assert chosen(balanced=True, classes=("ant", "cat"))[:2] == [0, 4]


def test_a_seed_gives_one_order():
    one, again, other = (chosen(shuffle=seed) for seed in (1, 1, 2))
    assert one == again != other
    assert sorted(one) == sorted(other) == list(range(10))
    assert chosen(shuffle=0) != list(range(10))


NET = """
import torch
def make():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
"""


def test_an_image_falls_in_a_subset_as_it_does_in_the_whole(tmp_path, capsys):
    (tmp_path / "net.py").write_text(NET)
    model = ["--model", f"{tmp_path / 'net.py'}:make", "--dataset", "digits", "--eps", "0.02"]
    common = ["eval", *model, "--attack", "pgd3:restarts=2", "--no-checks", "--out", str(tmp_path)]
    common += ["--certify", "smoothing:n=40,n0=10,alpha=0.01"]
    subset = ["--only-classes", "3,8", "--balanced", "--shuffle", "5", "--n", "20"]
    assert main([*common, "--name", "whole"]) == 0
    assert main([*common, "--name", "some", *subset]) == 0
    assert "on digits (classes 3, 8; balanced; shuffle 5)" in capsys.readouterr().out
    some, whole = (np.load(tmp_path / each / "examples.npz") for each in ("some", "whole"))
    assert np.bincount(some["label"]).tolist() == [0, 0, 0, 10, 0, 0, 0, 0, 10]
    for key in whole.files:
        assert np.array_equal(some[key], whole[key][some["index"]]), key
    run = json.loads((tmp_path / "some" / "run.json").read_text())
    asked = {"classes": ["3", "8"], "balanced": True, "shuffle": 5}
    assert (run["config"]["subset"], run["n"], run["dataset"]["test"]) == (asked, 20, 500)
    plain = json.loads((tmp_path / "whole" / "run.json").read_text())
    assert "subset" not in plain["config"]
    assert plain["dataset"]["test_sha256"] != run["dataset"]["test_sha256"]
    assert main([*common, "--only-classes", "3", "--n", "90"]) == 2
    assert "--n 90: the chosen subset has" in capsys.readouterr().err
