"""Masks from the command line to the record and the table."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from robustbench_cli.cli import main
from robustbench_cli.commands.display import Display
from robustbench_cli.runs import records

SMALL = ["--epochs", "2", "--set", "train.limit=200", "--set", "train.probe=20"]


def folder_of(capsys, *args):
    """The folder that a command names last, and all it said."""
    capsys.readouterr()
    assert main([*map(str, args), "--quiet"]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    return Path(said.strip().splitlines()[-1]), said


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    out = tmp_path_factory.mktemp("masks") / "results"
    args = ["train", "standard", "--epochs", "6", "--set", "train.probe=0", "--name", "net"]
    assert main([*args, "--out", str(out), "--quiet"]) == 0
    return out


@pytest.fixture
def evaluate(results, capsys):
    """An evaluation of the run ``net``: its record, its verdicts, and what was printed."""

    def run(*args):
        common = ["--run", "net", "--n", "60", "--eps", "0.2", "--out", results]
        folder, said = folder_of(capsys, "eval", *args, *common)
        with np.load(folder / "examples.npz") as arrays:
            return records.read(folder), {k: arrays[k] for k in arrays.files}, said

    return run


def test_a_mask_is_in_the_record_the_heading_and_the_table(evaluate, results, capsys):
    plain, _, said = evaluate("--attack", "pgd10")
    assert plain.config["threat"] == {"norm": "Linf", "eps": 0.2}  # as before there were masks
    assert "mask" not in said.splitlines()[0]
    masked, _, said = evaluate("--attack", "pgd10", "--mask", "background")
    assert masked.config["threat"] == {"norm": "Linf", "eps": 0.2, "mask": "threshold:above=0.1"}
    assert "on digits, Linf eps 0.2, mask threshold:above=0.1" in said
    full, local = (run.attacks["pgd10"].robust_accuracy for run in (plain, masked))
    assert local > full + 0.3
    assert local < masked.clean_accuracy
    assert main(["report", "--results", str(results)]) == 0
    table = capsys.readouterr().out
    assert re.search(r"Linf 0\.2 +60 .*\n.*Linf 0\.2, mask threshold:above=0\.1 +60 ", table)
    assert main(["report", "--results", str(results), "--format", "json"]) == 0
    raw = json.loads(capsys.readouterr().out)
    assert [row.get("mask") for row in raw] == [None, "threshold:above=0.1"]


def test_a_mask_that_frees_everything_gives_the_same_verdicts(evaluate):
    attacks = ["--attack", "pgd5", "--attack", "apgd-ce-10", "--attack", "square40"]
    _, plain, _ = evaluate(*attacks)
    _, masked, _ = evaluate(*attacks, "--mask", "box:share=1")
    assert plain.keys() == masked.keys()
    for key, values in plain.items():
        assert np.array_equal(masked[key], values), key


def test_verdicts_do_not_depend_on_how_many_are_attacked_at_once(evaluate):
    mask = ["--mask", "saliency:top=0.5", "--attack", "pgd8", "--precision", "exact"]
    _, whole, _ = evaluate(*mask)
    _, parts, _ = evaluate(*mask, "--batch-size", "7")
    for key in ("prediction", "step", "forwards"):
        assert np.array_equal(parts[f"pgd8/{key}"], whole[f"pgd8/{key}"]), key


def test_a_sweep_under_a_mask_ends_where_a_single_evaluation_does(evaluate):
    mask = ["--mask", "border:width=2", "--attack", "pgd8"]
    single, _, _ = evaluate(*mask)
    swept, _, said = evaluate(*mask, "--sweep", "eps=0,0.1,0.2")
    shares = [each.robust_accuracy for each in swept.attacks.values()]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] <= single.attacks["pgd8"].robust_accuracy  # it keeps what 0.1 has broken
    assert "Linf, mask border:width=2" in said


def test_attack_keeps_images_that_differ_in_free_pixels_only(results, capsys):
    args = ["attack", "cw10", "--run", "net", "--n", 40, "--mask", "threshold:above=0.2"]
    folder, _ = folder_of(capsys, *args, "--out", results)
    with np.load(folder / "adversarial.npz") as kept:
        x, x_adv = kept["x"], kept["x_adv"]
    assert np.array_equal(x_adv[x > 0.2], x[x > 0.2])
    assert (x_adv != x).any(axis=(1, 2, 3)).mean() > 0.8


def test_images_are_transferred_under_a_mask(evaluate, results, capsys):
    args = ["train", "standard", *SMALL, "--seed", "1", "--name", "other", "--out", results]
    folder_of(capsys, *args)
    mask = ["--mask", "threshold", "--source", "other"]
    moved, _, _ = evaluate("--attack", "pgd10", *mask)
    assert moved.attacks["pgd10"].n == 60
    assert main(["report", "--transfer", "--results", str(results), "--format", "json"]) == 0
    assert "threshold:above=0.1" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["pgd-at:steps=3", "localized:steps=3"])
def test_what_was_trained_under_a_mask_is_evaluated_without_unless_asked(what, results, capsys):
    mask = ["--mask", "threshold:above=0.2"] if what.startswith("pgd") else []
    name = ["--name", f"masked-{what[:3]}", "--out", results]
    folder, _ = folder_of(capsys, "train", what, *SMALL, *mask, *name)
    trained = records.read(folder)
    assert trained.config["threat"].get("mask", "") == "".join(mask[1:])
    assert trained.history[-1]["train_robust"] is not None
    run = ["--run", folder.name, "--n", 40, "--out", results]
    folder, said = folder_of(capsys, "eval", "--attack", "fgsm", *run)
    assert set(records.read(folder).config["threat"]) == {"norm", "eps"}
    assert "mask" not in said.splitlines()[0].partition(" on ")[2]


def interrupt(*_):
    """Ctrl-C after the first epoch."""
    raise KeyboardInterrupt


def test_a_run_under_a_mask_is_resumed_as_it_began(results, capsys, monkeypatch):
    args = ["train", "pgd-at:steps=2", *SMALL, "--mask", "saliency", "--out", str(results)]
    whole, _ = folder_of(capsys, *args, "--name", "whole")
    monkeypatch.setattr(Display, "epoch", interrupt)
    assert main([*args, "--name", "cut", "--quiet"]) == 130
    monkeypatch.undo()
    assert records.read(results / "cut").config["threat"]["mask"] == "saliency:top=0.2"
    cut, _ = folder_of(capsys, "train", "--resume", "cut", "--out", results)
    files = [folder / "model.safetensors" for folder in (whole, cut)]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--attack", "pgd5", "--mask", "treshold"], "did you mean 'threshold'"),
        (["--attack", "pgd5", "--mask", "file:none.npz"], "'none.npz' cannot be read"),
        (["--attack", "lbfgs", "--norm", "L2", "--mask", "border"], "knows of no mask"),
        (["--certify", "smoothing", "--mask", "border"], "--certify goes without --mask"),
        (["--attack", "pgd5", "--set", "threat.mask=box:share=2"], "parameter 'share'"),
    ],
)
def test_a_mistake_costs_one_line_and_leaves_nothing(args, message, results, capsys):
    before = sorted(results.iterdir())
    assert main(["eval", "--run", "net", "--n", "20", "--out", str(results), *args]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert not out
    assert err.count("\n") == 1
    assert sorted(results.iterdir()) == before


def test_a_file_that_does_not_fit_leaves_nothing(results, tmp_path, capsys):
    np.savez(tmp_path / "m.npz", mask=np.ones((28, 28)))
    before = sorted(results.iterdir())
    args = ["--run", "net", "--n", "20", "--out", str(results), "--mask"]
    assert main(["eval", "--attack", "fgsm", *args, f"file:{tmp_path / 'm.npz'}"]) == 2
    assert "has shape (28, 28), the images are (1, 8, 8)" in capsys.readouterr().err
    assert sorted(results.iterdir()) == before
