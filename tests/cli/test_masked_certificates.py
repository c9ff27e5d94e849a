"""Certificates by votes on parts of images, from training to the table."""

import json

import numpy as np
import pytest

from robustbench_cli.certificates.ablation import Ablation
from robustbench_cli.cli import main
from robustbench_cli.evaluation import journal
from robustbench_cli.runs import folders

SMALL = ["--set", "train.probe=0", "--set", "model.width=6", "--set", "train.batch_size=64"]
TRAINED = {
    "seen": ("ablation-training:keep=20", "16"),
    "bands": ("band-training:width=2", "4"),
    "plain": ("standard", "1"),
}
ABLATION = "ablation:keep=20,n=200,n0=20"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two base nets that saw parts of digits for a few epochs, and a plain one."""
    out = tmp_path_factory.mktemp("masked") / "results"
    for name, (defense, epochs) in TRAINED.items():
        train = ["train", defense, "--epochs", epochs, "--out", str(out), "--name", name, "--quiet"]
        assert main([*train, *SMALL]) == 0
    return out


def evaluated(results, out, run, *more):
    """The record and the arrays of an evaluation."""
    command = ["eval", "--run", str(results / run), *more, "--out", str(out), "--quiet"]
    assert main(command) == 0
    folder = out / folders.every(out)[-1].id
    with np.load(folder / "examples.npz") as arrays:
        return folders.every(out)[-1], {key: arrays[key] for key in arrays.files}


def test_certified_accuracy_is_reported_within_numbers_of_pixels(results, tmp_path, capsys):
    chosen = ["--certify", ABLATION, "--norm", "L0", "--eps", "3", "--n", "30"]
    run, arrays = evaluated(results, tmp_path, "seen", *chosen)
    out = capsys.readouterr().out
    proof = run.certificates[ABLATION]
    assert (proof.norm, proof.forwards) == ("L0", 30 * 220)
    within = {(each.norm, each.eps): each for each in proof.within}
    assert list(within) == [("L0", size) for size in (0, 1, 2, 4, 8, 16, 3)]
    right = arrays[f"{ABLATION}/certified"] == arrays["label"]
    radius = arrays[f"{ABLATION}/radius"]
    for (_, size), each in within.items():
        assert each.correct == (right & (radius >= size)).sum()
    assert proof.correct > 15
    assert proof.median_radius == np.median(np.where(right, radius, 0))
    assert "certified@L0=3" in out
    assert "of the base net, which is shown whole images" in out
    again = Ablation(keep=20, n=200, n0=20).certify(
        {"votes": arrays[f"{ABLATION}/votes"], "image": arrays[f"{ABLATION}/image"]}
    )
    assert np.array_equal(again.radius, radius)
    sure = arrays[f"{ABLATION}/confidence"]
    assert ((sure >= 0) & (sure < 1)).all()
    assert np.array_equal(arrays[f"{ABLATION}/certified"] >= 0, sure > 0.5)
    assert main(["report", "--results", str(tmp_path), "-f", "json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["correct"]["certified@L0=1"] == [within["L0", 1].correct]


def test_bands_certify_patches(results, tmp_path):
    chosen = ["--certify", "derandomized:width=2", "--norm", "patch", "--eps", "1", "--n", "40"]
    run, arrays = evaluated(results, tmp_path, "bands", *chosen)
    proof = run.certificates["derandomized:width=2"]
    assert (proof.norm, proof.forwards) == ("patch", 40 * 8)
    # A patch of ten pixels a side does not fit into a digit.
    assert [each.eps for each in proof.within] == [0, 2, 3, 4, 5, 6, 8, 1]
    assert {each.eps: each.correct for each in proof.within}[1] > 0
    silent = arrays["derandomized:width=2/votes"].sum((1, 2)) == 0
    assert proof.abstained == silent.mean() < 0.2


def test_a_ball_that_holds_none_of_its_norm_is_left_out_and_said(results, tmp_path):
    run, _ = evaluated(results, tmp_path, "seen", "--certify", "ablation:keep=20,n=20", "--n", "2")
    (proof,) = run.certificates.values()
    assert {each.norm for each in proof.within} == {"L0"}
    assert any("say nothing about Linf 0.15: --norm L0 --eps SIZE" in n for n in run.notes)


def test_other_parts_than_those_trained_on_are_said(results, tmp_path):
    run, _ = evaluated(results, tmp_path, "seen", "--certify", "derandomized", "--n", "2")
    assert any("trained on 20 pixels, and is shown columns of width 4" in n for n in run.notes)


def test_an_interrupted_one_goes_on_to_the_same_votes(results, tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "FLUSH", -1.0)
    chosen = ["--certify", ABLATION, "--norm", "L0", "--eps", "3", "--n", "8"]
    whole, theirs = evaluated(results, tmp_path / "whole", "seen", *chosen)
    evidence, out = Ablation.evidence, tmp_path / "cut"

    def interrupted(self, subject, rows):
        yield next(evidence(self, subject, rows))
        raise KeyboardInterrupt

    more = ["--set", "batch_size=500"]  # two examples at a time
    with monkeypatch.context() as patch:
        patch.setattr(Ablation, "evidence", interrupted)
        command = ["eval", "--run", str(results / "seen"), *chosen, *more, "--out", str(out)]
        assert main([*command, "--quiet"]) == 130
    (cut,) = folders.every(out)
    resumed, mine = evaluated(results, out, "seen", *chosen, *more)
    assert (resumed.id, resumed.status) == (cut.id, "ok")
    for key, values in theirs.items():
        assert np.array_equal(mine[key], values), key
    assert resumed.certificates[ABLATION].within == whole.certificates[ABLATION].within


def test_a_plain_net_needs_a_value_for_hidden_pixels_and_that_is_said(results, tmp_path):
    chosen = ["--certify", "ablation:null=0,n=20", "--n", "2"]
    run, _ = evaluated(results, tmp_path, "plain", *chosen)
    assert any("was not trained on images with hidden pixels" in note for note in run.notes)


@pytest.mark.parametrize(
    ("run", "args", "message"),
    [
        ("plain", ["ablation"], "was not trained on such: train one"),
        ("plain", ["derandomized"], "--certify derandomized:null=0.5"),
        ("seen", ["ablation:null=0.5"], "has a value of its own for hidden pixels"),
        ("seen", ["ablation:keep=65"], "keep=65: images have 64 pixels"),
        ("bands", ["derandomized:width=9"], "width=9: images have 8 pixels a side"),
        ("bands", ["derandomized:piece=colum"], "'piece'"),
        ("seen", ["ablation:keep=0"], "'keep': Input should be greater than or equal to 1"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(run, args, message, results, tmp_path, capsys):
    command = ["eval", "--run", str(results / run), "--n", "4", "--out", str(tmp_path)]
    assert main([*command, "--certify", *args]) == 2
    assert message in (err := capsys.readouterr().err)
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())
