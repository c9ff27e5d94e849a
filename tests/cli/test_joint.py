"""``advbench joint`` from training to the figures, and its mistakes."""

import csv
import io
import json
import shutil

import numpy as np
import pytest

from robustbench_cli.cli import main
from robustbench_cli.evaluation.journal import read_arrays
from robustbench_cli.runs import folders, records

SMALL = ["--set", "train.limit=300", "--set", "train.probe=0", "--set", "model.width=4"]
TWO = ["--run", "plain", "--run", "firm"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two nets on the digits, one of them trained a little against attacks, and both fooled."""
    out = tmp_path_factory.mktemp("joint") / "results"
    for name, defense in (("plain", "standard"), ("firm", "pgd-at:steps=2,step=1/2")):
        train = ["train", defense, "--epochs", "3", "--name", name, "--quiet", *SMALL]
        assert main([*train, "--out", str(out)]) == 0
    options = [*TWO, "--eps", "0.1", "--n", "60", "--steps", "10", "--name", "both", "--quiet"]
    assert main(["joint", *options, "--out", str(out)]) == 0
    return out


@pytest.fixture
def joint(results, capsys):
    """Run the command; returns (exit code, stdout, stderr)."""

    def run(*args):
        capsys.readouterr()
        code = main(["joint", *map(str, args), "--out", str(results), "--quiet"])
        return (code, *capsys.readouterr())

    return run


def verdicts(results, name):
    run = records.read(results / name)
    return run, read_arrays(results / name / "examples.npz")


def test_runs_are_fooled_at_one_image_and_the_record_can_be_recomputed(joint, results):
    code, out, err = joint(*TWO, "--eps", "0.1", "--n", "60", "--steps", "10", "--name", "again")
    assert (code, err) == (0, "")
    run, arrays = verdicts(results, "again")
    assert (run.kind, run.status, run.n) == ("joint", "ok", 60)
    assert run.config["runs"].keys() == {"plain", "firm"}
    assert run.config["attack"]["min-max"]["steps"] == 10
    assert run.config["threat"] == {"norm": "Linf", "eps": 0.1}
    wrong = arrays["min-max/prediction"] != arrays["label"]
    clean = arrays["clean/prediction"] != arrays["label"]
    assert wrong.shape == (60, 2)
    assert run.worst_case_accuracy == pytest.approx(1 - wrong.all(1).mean())
    assert run.clean_accuracy == pytest.approx(1 - clean.all(1).mean())
    assert wrong.all(1).mean() <= wrong.mean(0).min()
    assert [each.name for each in run.domains] == ["plain", "firm"]
    for i, each in enumerate(run.domains):
        assert each.robust_accuracy == pytest.approx(1 - wrong[:, i].mean())
        assert each.clean_accuracy == pytest.approx(1 - clean[:, i].mean())
    assert sum(each.weight for each in run.domains) == pytest.approx(1, abs=1e-5)
    assert (arrays["min-max/norm"] <= 0.1 + 1e-6).all()
    assert (wrong[clean.all(1)] == clean[clean.all(1)]).all()  # nothing was done to those
    assert records.sha256(results / "again" / "examples.npz") == run.examples["sha256"]
    fooled, before = wrong.all(1).sum(), clean.all(1).sum()
    counts = f"({fooled} of 60 images, {before} of them without any change)"
    assert f"wrong in all domains: {fooled / 60:.2%} {counts}" in out


def test_the_report_has_a_table_for_them(results, tmp_path, capsys):
    for name in ("plain", "firm", "both"):
        shutil.copytree(results / name, tmp_path / name)

    def report(*args):
        capsys.readouterr()
        assert main(["report", "--joint", *args, "--results", str(tmp_path)]) == 0
        return capsys.readouterr().out

    run = records.read(results / "both")
    fooled = f"{100 * (1 - run.worst_case_accuracy):.2f}"
    each = [f"{100 * domain.robust_accuracy:.2f}" for domain in run.domains]
    lines = report("--format", "md").splitlines()
    assert f"| min-max | {fooled} | {each[0]} | {each[1]} |" in lines
    assert "standard, pgd-at:steps=2,step=0.5: digits, Linf 0.1, n 60" in " ".join(lines)
    (found,) = json.loads(report("--format", "json"))
    assert found["wrong in all"] == pytest.approx(1 - run.worst_case_accuracy)
    assert (found["attack"], found["joint"]) == ("min-max", ["both"])
    (line,) = csv.DictReader(io.StringIO(report("--format", "csv")))
    assert line["runs"] == "standard, pgd-at:steps=2,step=0.5"
    assert "wrong in all" in report()
    assert "[" in report("--intervals")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--joint", "--transfer"], "--transfer goes without --joint"),
        (["--joint", "--sort", "clean"], "--joint goes without --sort"),
        (["--joint", "--paper", "trades"], "--paper goes without --joint"),
        (["--joint", "--plot", "a"], "--plot goes without --joint"),
        (["--joint", "--dataset", "mnist"], "no finished joint attack"),
    ],
)
def test_the_report_refuses_what_does_not_go_with_it(args, message, results, capsys):
    assert main(["report", *args, "--results", str(results)]) == 2
    assert message in capsys.readouterr().err


def test_weights_may_be_left_alone(joint, results):
    assert joint(*TWO, "--n", "20", "--weights", "avg", "--name", "average")[0] == 0
    assert joint(*TWO, "--n", "20", "--weights", "0.8/0.2", "--name", "fixed")[0] == 0
    assert [each.weight for each in verdicts(results, "average")[0].domains] == [0.5, 0.5]
    fixed = [each.weight for each in verdicts(results, "fixed")[0].domains]
    assert fixed == pytest.approx([0.8, 0.2])


def test_images_share_one_change_and_transforms_multiply(joint, results):
    options = ["--run", "plain", "--images", "3", "--n", "20", "--steps", "4"]
    code, out, _ = joint(*options, "--transform", "identity", "--transform", "flip", "--name", "g")
    assert code == 0
    run, arrays = verdicts(results, "g")
    assert run.n == 6
    assert arrays["label"].shape == (6, 6)
    assert [each.name for each in run.domains][:3] == [
        "image 1 identity",
        "image 1 flip",
        "image 2 identity",
    ]
    assert run.notes == ["2 images are left out: they fill no group"]
    assert "of 6 groups" in out


def test_an_interrupted_attack_goes_on_and_ends_the_same(joint, results, monkeypatch):
    from robustbench_cli.commands import joint as running

    options = [*TWO, "--n", "40", "--steps", "5", "--batch-size", "8"]
    assert joint(*options, "--name", "whole")[0] == 0
    work, seen = running.run_stages, []

    def dies(*args):
        for progress in work(*args):
            if len(seen) == 3:
                raise KeyboardInterrupt
            seen.append(progress)
            yield progress

    monkeypatch.setattr(running, "run_stages", dies)
    monkeypatch.setattr("robustbench_cli.evaluation.journal.FLUSH", 0.0)
    assert joint(*options, "--name", "twice")[0] == 130
    assert records.read(results / "twice").status == "interrupted"
    monkeypatch.undo()
    code, _, _ = joint(*options, "--name", "twice")
    assert code == 0
    for (key, here), there in zip(
        verdicts(results, "twice")[1].items(), verdicts(results, "whole")[1].values(), strict=True
    ):
        np.testing.assert_allclose(here, there, atol=1e-5, err_msg=key)
    assert not (results / "twice" / "journal").exists()


def test_list_and_show_know_of_it(results, capsys):
    assert main(["list", "runs", "--results", str(results)]) == 0
    assert main(["show", "both", "--results", str(results)]) == 0
    out = capsys.readouterr().out
    assert "joint run, ok" in out
    assert "standard, pgd-at" in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--run", "plain"], "needs two domains at least"),
        (["--run", "plain", "--run", "nobody"], "no train run 'nobody'"),
        (["--run", "plain", "--run", "plain"], "run 'plain' is given twice"),
        ([*TWO, "--weights", "0.5/0.3"], "weights are shares of one, these sum to 0.8"),
        ([*TWO, "--weights", "0.5/0.3/0.2"], "3 weights are given for 2 domains"),
        ([*TWO, "--weights", "best"], "expected min-max, avg, or shares of one"),
        ([*TWO, "--gamma", "-1"], "greater than 0"),
        ([*TWO, "--attack", "pgd20"], "a joint attack is min-max with its parameters, not 'pgd'"),
        ([*TWO, "--attack", "min-max:btea=1"], "did you mean 'beta'"),
        ([*TWO, "--transform", "flp"], "unknown transform 'flp'; did you mean 'flip'"),
        ([*TWO, "--transform", "flip", "--transform", "flip"], "'flip' is given twice"),
        ([*TWO, "--images", "0"], "images: Input should be greater than or equal to 1"),
        ([*TWO, "--n", "501"], "the test split has 500 examples"),
        (["--run", "plain", "--images", "5", "--n", "4"], "a group 5"),
        ([*TWO, "--eps", "8"], "did you mean '8/255'"),
        ([*TWO, "--name", "both"], "exists: choose another --name"),
    ],
)
def test_mistakes_cost_one_line_and_leave_nothing(joint, results, args, message):
    before = {folder.name for folder, _ in folders.found(results)}
    code, out, err = joint(*args)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert {path.name for path in results.iterdir()} == before


def test_runs_on_other_images_cannot_be_fooled_together(joint, results, tmp_path):
    other = tmp_path / "images"
    from PIL import Image

    for split in ("train", "test"):
        for label in "0123456789":
            (other / split / label).mkdir(parents=True)
            for i in range(4):
                shade = 20 * int(label) + i
                Image.new("L", (8, 8), shade).save(other / split / label / f"{i}.png")
    train = ["train", "standard", "--epochs", "1", "--name", "alien", "--quiet"]
    train += ["--dataset", f"folder:{other}", "--set", "train.probe=0", "--model", "digits-cnn"]
    assert main([*train, "--out", str(results)]) == 0
    code, _, err = joint("--run", "plain", "--run", "alien")
    assert code == 2
    assert "run 'plain' is of digits, run 'alien' of folder: one image cannot fool both" in err
