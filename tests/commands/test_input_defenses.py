"""Evaluations of models behind input defenses, from the command line and from Python."""

import json

import numpy as np
import pytest
import torch

from robustbench_cli import Threat, attack, evaluate
from robustbench_cli.certificates.smoothing import Smoothing
from robustbench_cli.cli import main
from robustbench_cli.core.errors import UserError
from robustbench_cli.input_defenses.bit_depth import BitDepth
from robustbench_cli.models.defended import DefendedModel
from robustbench_cli.runs import records

LINF = Threat("Linf", 0.08)
SMALL = ["--set", "train.limit=400", "--set", "train.probe=20", "--set", "model.width=4"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A small run, evaluated without and with input defenses."""
    out = tmp_path_factory.mktemp("results")
    train = ["train", "standard", "--epochs", "4", *SMALL, "--name", "net", "--out", str(out)]
    assert main([*train, "--quiet"]) == 0
    for name, *more in (("plain",), ("coarse", "--defend", "bit-depth:2", "--defend", "jpeg")):
        assert main(evaluating(out, name, *more)) == 0
    return out


def evaluating(out, name, *more, command="eval", images=("--n", "40")):
    attacks = ["--attack", "pgd5"] if command == "eval" else []
    where = ["--run", "net", "--name", name, "--out", str(out), "--eps", "0.1", "--quiet"]
    return [command, *attacks, *where, *images, *more]


def arrays_of(folder):
    with np.load(folder / "examples.npz") as archive:
        return dict(archive)


def test_the_record_names_the_defenses_in_order(results):
    plain, coarse = (records.read(results / name) for name in ("plain", "coarse"))
    assert "defend" not in plain.config
    assert list(coarse.config["defend"]) == ["bit-depth:bits=2", "jpeg"]
    assert coarse.config["defend"]["jpeg"] == {"name": "jpeg", "quality": 75}
    assert coarse.settings.behind == " behind bit-depth:bits=2, jpeg"
    assert plain.settings.behind == ""
    assert coarse.weights.startswith(plain.weights + "+")
    assert coarse.attacks["pgd5"].trust != "unchecked"


def test_rows_with_and_without_are_never_one(results, capsys):
    assert main(["report", "--results", str(results)]) == 0
    shown = capsys.readouterr().out
    assert "standard behind bit-depth:bits=2, jpeg" in " ".join(shown.split())
    assert main(["report", "--results", str(results), "--format", "json"]) == 0
    rows = [each["defense"] for each in json.loads(capsys.readouterr().out)]
    assert sorted(rows) == ["standard", "standard behind bit-depth:bits=2, jpeg"]
    assert main(["show", "coarse", "--results", str(results)]) == 0
    assert "standard behind bit-depth:bits=2, jpeg" in " ".join(capsys.readouterr().out.split())


def test_images_are_stored_as_they_were_before_the_defense(results):
    images = ("--n", "8", "--no-checks", "--defend", "bit-depth:1")
    assert main(evaluating(results, "kept", "pgd5", command="attack", images=images)) == 0
    with np.load(results / "kept" / "adversarial.npz") as archive:
        x_adv = archive["x_adv"]
        assert np.abs(x_adv - archive["x"]).max() <= 0.1 + 1e-6
    assert len(np.unique(x_adv)) > 20  # not two levels


def test_images_for_the_undefended_net_are_a_non_adaptive_bound(results, capsys):
    more = ["--defend", "jpeg:quality=20", "--source", "net"]
    assert main([*evaluating(results, "moved", *more), "--strict"]) == 3
    said = capsys.readouterr()
    assert "non-adaptive upper bound" in said.out
    assert "≤" in said.out
    run = records.read(results / "moved")
    assert run.attacks["pgd5"].trust == "upper bound"


def test_a_certificate_votes_through_the_defense(results):
    more = ["--certify", "smoothing:n=10,n0=5,sigma=0.1", "--defend", "resize-pad", "--no-checks"]
    folders = []
    for name, batch in (("sure", "16"), ("again", "64")):
        command = evaluating(results, name, *more, "--batch-size", batch, images=("--n", "4"))
        assert main([each for each in command if each not in ("--attack", "pgd5")]) == 0
        folders.append(arrays_of(results / name))
    one, other = folders
    for key in one:  # draws belong to the example, not to the batch
        assert np.array_equal(one[key], other[key]), key


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--defend", "lgz"], "unknown input-defense 'lgz'; did you mean 'lgs'"),
        (["--defend", "lgs:gama=1"], "input-defense 'lgs' has no parameter 'gama'"),
        (["--defend", "jpeg", "--defend", "jpeg:quality=75"], "'jpeg' is given twice"),
        (["--defend", "jpeg:quality=0"], "greater than or equal to 1, got '0'"),
    ],
)
def test_mistakes_cost_one_line(results, capsys, more, said):
    assert main(evaluating(results, "none", *more)) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert len(shown.strip().splitlines()) == 1
    assert not (results / "none").exists()


def test_a_certificate_that_looks_into_the_network_is_refused(results, capsys, monkeypatch):
    monkeypatch.setattr(Smoothing, "behind_defenses", False)  # as all others have it
    more = ["--certify", "smoothing", "--defend", "lgs"]
    assert main(evaluating(results, "none", *more)) == 2
    assert "--certify smoothing goes without --defend" in capsys.readouterr().err


def test_a_detector_of_the_undefended_net_is_refused(results, capsys):
    fit = ["detect", "fit", "softmax", "--run", "net", "--name", "fit", "--out", str(results)]
    assert main([*fit, "--quiet"]) == 0
    capsys.readouterr()
    assert main(evaluating(results, "none", "--detector", "fit", "--defend", "lgs")) == 2
    assert "--detector goes without --defend" in capsys.readouterr().err


def test_names_are_listed_and_explained(capsys):
    assert main(["list", "input-defenses"]) == 0
    listed = capsys.readouterr().out
    assert "watermark" in listed
    assert "resize-pad" in listed
    assert main(["show", "lgs"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "gamma in the paper" in shown
    assert "exact, straight-through, smoothed" in shown
    assert "--defend lgs" in shown


def test_python_takes_names_and_dataclasses(digits_model):
    net, x, y = digits_model
    asked = {"attacks": "pgd5", "threat": LINF, "checks": False}
    by_name = evaluate(net, x, y, defend="bit-depth:2", **asked)
    by_class = evaluate(net, x, y, defend=[BitDepth(bits=2)], **asked)
    by_hand = evaluate(DefendedModel(net, [BitDepth(bits=2)]).eval(), x, y, **asked)
    plain = evaluate(net, x, y, **asked)
    assert by_name.robust_accuracy == by_class.robust_accuracy == by_hand.robust_accuracy
    assert by_name.robust_accuracy != plain.robust_accuracy
    found = attack("pgd5", net, x, y, threat=LINF, defend="bit-depth:2")
    assert 1 - found.broken.float().mean() == pytest.approx(by_name.robust_accuracy["pgd5"])
    with pytest.raises(UserError, match="an input defense is a name such as 'lgs'"):
        evaluate(net, x, y, defend=[3], **asked)


def test_verdicts_on_a_random_defense_depend_on_the_seed_and_the_example_alone(digits_model):
    net, x, y = digits_model
    x, y = x[:4], y[:4]

    def shares(batch, seed=0):
        torch.manual_seed(batch)  # nothing follows from torch's generator
        found = evaluate(
            net,
            x,
            y,
            attacks="pgd:steps=2",
            threat=LINF,
            defend="resize-pad:smallest=0.5",
            batch_size=batch,
            checks=False,
            seed=seed,
        )
        return found.clean_accuracy, *found.robust_accuracy.values()

    first = shares(3)
    assert shares(4) == first
    assert shares(3, seed=1) != first
