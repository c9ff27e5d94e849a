"""Deep pursuit as a user types it: trained and attacked like any other, and audited."""

import pytest

from robustbench_cli.audit import CHECKS
from robustbench_cli.cli import main
from robustbench_cli.runs import folders, records

SIZE = ["--epochs", "2", "--batch-size", "50", "--lr", "0.05"]
SIZE += ["--set", "train.limit=400", "--set", "train.probe=0"]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A folder with two runs: a deep pursuit, and a layered one that is trained with PGD."""
    out = tmp_path_factory.mktemp("results")
    deep = ["train", "standard", "--model", "deep-pursuit:width=8,iterations=3"]
    layered = ["train", "pgd-at:steps=2", "--model", "layered-pursuit:width=4", "--eps", "0.1"]
    layered += ["--set", "model.iterations=2"]
    for name, words in (("deep", deep), ("layered", layered)):
        assert main([*words, *SIZE, "--name", name, "--out", str(out), "--quiet"]) == 0
    return out


def read(out, name, kind):
    return records.read(folders.find_run(name, out, kind))


@pytest.mark.parametrize(("name", "iterations"), [("deep", 3), ("layered", 2)])
def test_it_learns_and_its_records_say_how_many_iterations_it_unrolls(out, name, iterations):
    words = ["eval", "--run", name, "--attack", "pgd5", "--attack", "square20", "--eps", "0.1"]
    words += ["--n", "40", "--no-checks", "--name", f"{name}-eval", "--out", str(out), "--quiet"]
    assert main(words) == 0
    for kind, run in (("train", name), ("eval", f"{name}-eval")):
        assert read(out, run, kind).config["model"]["iterations"] == iterations
    attacked = read(out, f"{name}-eval", "eval")
    assert attacked.clean_accuracy > 0.5
    assert attacked.attacks["pgd5"].robust_accuracy < attacked.clean_accuracy


def test_its_audit_tries_other_numbers_of_iterations(out, monkeypatch):
    monkeypatch.setattr(CHECKS, "names", lambda: ["iterations"])
    words = ["audit", "deep", "--attack", "pgd5", "--eps", "0.1", "--n", "12"]
    assert main([*words, "--name", "audit", "--out", str(out), "--quiet"]) in (0, 1, 3)
    audit = read(out, "audit", "audit")
    said = [each.text for each in audit.audit.measures]
    assert said[0].startswith("with 12 iterations the same weights")
    against, more, none = audit.audit.attacks
    assert (against.check, against.same_radius) == ("iterations", False)
    assert against.label == "pgd5 against 12 iterations"
    assert (more.label, none.label) == (
        "pgd5 with 12 iterations",
        "pgd5 with no iterations (feed-forward)",
    )
    standing = round(audit.attacks["pgd5"].robust_accuracy * audit.n)
    assert more.tried == none.tried == standing
    assert more.same_radius
    # What becomes of the longer network says nothing of this one's number.
    assert more.left <= audit.attacks["pgd5"].robust_accuracy + 1e-6


def test_bounds_of_it_are_not_known(out, capsys):
    words = ["eval", "--run", "deep", "--certify", "ibp", "--eps", "0.01", "--n", "4"]
    assert main([*words, "--out", str(out), "--quiet"]) == 2
    assert "no bounds are known for conv_transpose2d" in capsys.readouterr().err
