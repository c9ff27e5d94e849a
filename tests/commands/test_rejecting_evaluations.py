"""Evaluations of models that reject images, from the command line and from Python."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from robustbench_cli import Threat, evaluate
from robustbench_cli.cli import main
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Spec
from robustbench_cli.data import DATASETS
from robustbench_cli.detectors import DETECTORS
from robustbench_cli.evaluation.detect import seen
from robustbench_cli.models.rejecting import ModelWithRejectClass
from robustbench_cli.runs import records

SMALL = ["--set", "train.limit=400", "--set", "train.probe=20", "--set", "model.width=4"]
FILE = '''
import torch
from torch import nn
from sklearn.datasets import load_digits

class Nearest(nn.Module):
    """The nearest class mean by cosine; the class at `place` rejects what is near to none."""

    def __init__(self, place=10):
        super().__init__()
        x, y = load_digits(return_X_y=True)
        means = [torch.tensor(x[:1000][y[:1000] == k].mean(0) / 16).float() for k in range(10)]
        self.register_buffer("means", nn.functional.normalize(torch.stack(means)))
        self.place = place

    def forward(self, x):
        near = nn.functional.normalize(x.flatten(1) - 1e-4) @ self.means.T
        rejects = 0.82 + 0 * near[:, :1]
        return 20 * torch.cat([near[:, : self.place], rejects, near[:, self.place :]], 1)

def last():
    return Nearest()

def first():
    return Nearest(0)

def none():
    return nn.Sequential(Nearest(), nn.Linear(11, 10))
'''


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "net.py"
    path.write_text(FILE)
    return path


def evaluated(out, file, *more, make="last", name="run"):
    command = ["eval", "--model", f"{file}:{make}", "--dataset", "digits", "--n", "120"]
    command += ["--weights", str(weights(file, make)), "--eps", "0.1", "--quiet", "--name", name]
    assert main([*command, "--attack", "pgd10:climbs=margin", "--out", str(out), *more]) == 0
    with np.load(out / name / "examples.npz") as arrays:
        return records.read(out / name), {key: arrays[key] for key in arrays.files}


def weights(file, make):
    path = file.with_name(f"{make}.pt")
    if not path.exists():
        torch.save(made(file, make).state_dict(), path)
    return path


def made(file, make):
    spaces = {}
    exec(file.read_text(), spaces)
    torch.manual_seed(0)
    return spaces[make]()


def test_what_counts_is_what_the_file_of_examples_says(tmp_path, file, capsys):
    run, found = evaluated(tmp_path, file, "--reject-class", "last", "--attack", "fgsm")
    label, clean = found["label"], found["clean/prediction"]
    assert (clean == 10).any()
    assert run.clean_accuracy == (clean == label).mean()
    assert run.rejection.clean_rejected == (clean == 10).mean()
    accepted = clean != 10
    assert run.rejection.accepted_accuracy == pytest.approx((clean == label)[accepted].mean())
    assert (run.rejection.kind, run.rejection.index) == ("class", 10)
    worst = clean == label
    for name, outcome in run.attacks.items():
        after = found[f"{name}/prediction"]
        stands = (clean == label) & ((after == label) | (after == 10))
        assert outcome.robust_accuracy == stands.mean()
        assert outcome.rejected == (stands & (after == 10)).mean()
        worst &= stands
    assert 0 < run.worst_case_accuracy == worst.mean() < run.clean_accuracy
    assert any(outcome.rejected for outcome in run.attacks.values())
    out = capsys.readouterr().out
    assert "reject class 10: clean = right and not rejected" in out
    assert "rejected" in next(line for line in out.splitlines() if line.startswith("attack"))


def test_the_place_of_the_reject_class_changes_nothing(tmp_path, file):
    last, at_last = evaluated(tmp_path, file, "--reject-class", "10", name="last")
    first, at_first = evaluated(tmp_path, file, "--reject-class", "0", make="first", name="first")
    assert first.rejection.index == 0
    assert first.clean_accuracy == last.clean_accuracy
    assert (
        first.attacks["pgd10:climbs=margin"].correct == last.attacks["pgd10:climbs=margin"].correct
    )
    for key in ("label", "clean/prediction", "pgd10:climbs=margin/prediction"):
        assert (at_first[key] == at_last[key]).all()


def test_a_report_keeps_rows_with_and_without_a_rejection_apart(tmp_path, file, capsys):
    evaluated(tmp_path, file, "--reject-class", "last", name="rejecting")
    evaluated(tmp_path, file, make="none", name="plain")
    assert "reject" not in json.loads((tmp_path / "plain" / "run.json").read_text())["config"]
    capsys.readouterr()
    assert main(["report", "--results", str(tmp_path), "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    rejects = {tuple(row["runs"]): row.get("rejects") for row in rows}
    assert rejects == {("rejecting",): "reject class 10", ("plain",): None}
    assert not any(row["best"] or row["tied"] for row in rows)  # nothing to compare them with
    assert main(["report", "--results", str(tmp_path)]) == 0
    assert "Linf 0.1, reject class 10" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--reject-class", "11"], "the model returns 11 logits, so give 0 to 10"),
        (["--reject-class", "-1"], "give the position of a class among the model's logits"),
        (["--reject-class", "ten"], "give the position of a class among the model's logits"),
        (["--fpr", "0.1"], "add --detector RUN"),
        (["--detector", "none"], "no detect run 'none'"),
    ],
)
def test_a_mistake_costs_one_line(tmp_path, file, capsys, more, message):
    command = ["eval", "--model", f"{file}:last", "--weights", str(weights(file, "last"))]
    command += ["--dataset", "digits", "--attack", "fgsm", "--out", str(tmp_path), "--quiet"]
    assert main([*command, *more]) == 2
    assert message in (err := capsys.readouterr().err)
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_from_python_it_is_the_same(tmp_path, file):
    run, _ = evaluated(tmp_path, file, "--reject-class", "last")
    test = DATASETS.build(Spec("digits")).load("test", tmp_path)
    x, y = test.images(slice(120)), test.y[:120]
    result = evaluate(
        made(file, "last"),
        x,
        y,
        attacks="pgd10:climbs=margin",
        threat=Threat("Linf", 0.1),
        reject_class="last",
    )
    assert result.clean_accuracy == run.clean_accuracy
    assert result.robust_accuracy == {
        name: each.robust_accuracy for name, each in run.attacks.items()
    }
    assert result.record.rejection == run.rejection
    kept = result.clean_correct & ~result.broken["pgd10:climbs=margin"]
    assert kept.mean() == run.attacks["pgd10:climbs=margin"].robust_accuracy
    assert "reject class 10" in result.table()
    with pytest.raises(UserError, match=r"labels must be 0\.\.9"):
        evaluate(made(file, "last"), x, y + 1, attacks="fgsm", threat=Threat(), reject_class=10)


def test_a_class_of_the_data_set_rejects_only_if_no_image_is_of_it():
    class Three(nn.Module):
        def forward(self, x):
            return torch.stack([x.flatten(1).sum(1), 1 + 0 * x[:, 0, 0, 0], -x[:, 0, 0, 0]], 1)

    from robustbench_cli.commands.rejection import _with_reject_class
    from robustbench_cli.data import Split

    images = torch.zeros(4, 1, 2, 2, dtype=torch.uint8)
    clear = Split(images, torch.tensor([0, 1, 0, 1]), ("a", "b", "c"))
    model, data = _with_reject_class(Three(), "last", clear)
    assert isinstance(model, ModelWithRejectClass)
    assert (model.classes, data.classes) == (2, ("a", "b"))
    for asked, labels in ((2, [0, 1, 2, 1]), (0, [0, 1, 0, 1])):
        with pytest.raises(UserError, match="may reject by the last one only"):
            _with_reject_class(Three(), asked, Split(images, torch.tensor(labels), clear.classes))
    with pytest.raises(UserError, match="with 5 classes in the data set it must be 6"):
        _with_reject_class(Three(), 2, Split(images, torch.tensor([0, 1, 0, 1]), tuple("abcde")))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A net that was trained for two epochs, with detectors."""
    out = tmp_path_factory.mktemp("detect") / "results"
    train = ["train", "standard", "--epochs", "8", "--name", "net", "--quiet", *SMALL]
    assert main([*train, "--out", str(out)]) == 0
    for name in ("gaussian", "knn9"):
        command = ["detect", "fit", name, "--run", "net", "--name", name, "--quiet"]
        assert main([*command, "--out", str(out)]) == 0
    return out


def guarded(results, *more):
    command = ["eval", "--run", "net", "--eps", "0.1", "--attack", "pgd10", "--quiet"]
    return main([*command, "--out", str(results), *more])


def test_a_detector_rejects_at_its_operating_point(results, capsys):
    assert guarded(results, "--detector", "gaussian", "--n", "150", "--name", "guarded") == 0
    run, fitted = records.read(results / "guarded"), records.read(results / "gaussian")
    found = run.rejection
    assert (found.kind, found.detector, found.fpr) == ("detector", "gaussian", 0.05)
    assert found.fitted == fitted.fitted["sha256"]
    assert found.held_out == 350  # of 500 test images
    assert found.held_out_flagged == 17 / 350
    assert found.label == "detector gaussian at 5 %"
    assert run.config["reject"] == {
        "detector": {"name": "gaussian", "score": "density", "ridge": 1e-3},
        "fitted": found.fitted,
        "fpr": 0.05,
    }
    from safetensors.torch import load_file

    from robustbench_cli import load_run

    test = DATASETS.build(Spec("digits")).load("test", results)
    known = load_file(results / "gaussian" / "detector.safetensors")
    net = load_run(results / "net").model
    scores = DETECTORS.build(Spec("gaussian")).suspicion(seen(net, test, 64), known)
    assert (scores[150:] > found.threshold).sum() == 17
    with np.load(results / "guarded" / "examples.npz") as arrays:
        clean = arrays["clean/prediction"]
    assert ((clean == 10) == (scores[:150] > found.threshold).numpy()).all()
    assert found.clean_rejected == (clean == 10).mean() > 0
    assert "flags 4.86% of 350 test images that were not evaluated" in capsys.readouterr().out


def test_another_rate_is_another_operating_point(results, capsys):
    assert (
        guarded(results, "--detector", "gaussian", "--n", "150", "--fpr", "1/5", "--name", "20")
        == 0
    )
    assert records.read(results / "20").rejection.held_out_flagged == 70 / 350
    capsys.readouterr()
    assert main(["report", "--results", str(results)]) == 0
    assert "detector gaussian at 20 %" in capsys.readouterr().out


def test_a_detector_without_a_gradient_makes_an_upper_bound(results, capsys):
    assert guarded(results, "--detector", "knn9", "--n", "100", "--name", "opaque") == 0
    run = records.read(results / "opaque")
    assert "no gradient passes through detector knn:k=9" in " ".join(run.notes)
    assert run.attacks["pgd10"].trust == "upper bound"
    assert "opaque-detector" in {finding.check for finding in run.findings}
    more = ["--attack", "square50", "--no-checks", "--name", "unchecked"]
    assert guarded(results, "--detector", "knn9", "--n", "40", *more) == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--detector", "gaussian"], "it takes 20 of them, 0 of 500 are left"),
        (["--detector", "gaussian", "--n", "490"], "it takes 20 of them, 10 of 500 are left"),
        (["--detector", "gaussian", "--fpr", "1"], "give a share of the clean images"),
        (["--detector", "gaussian", "--reject-class", "9"], "give one of them"),
        (["--detector", "net"], "run 'net' has fitted no detector"),
        (["--reject-class", "9", "--n", "20"], "no image may be of that class"),
    ],
)
def test_a_mistake_with_a_detector_costs_one_line(results, capsys, more, message):
    before = sorted(results.iterdir())
    capsys.readouterr()
    assert guarded(results, *more) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert (out, err.count("\n")) == ("", 1)
    assert sorted(results.iterdir()) == before
