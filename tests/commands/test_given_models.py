"""Models of the user's own through an evaluation: what is put around them, and what is recorded."""

import json
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
import torch

from robustbench_cli.cli import main
from robustbench_cli.commands.given_model import ModelOptions, load_given
from robustbench_cli.data.digits import Digits
from robustbench_cli.runs import folders

HEAD = """
import torch
from torch import nn
from net import make as plain

class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = plain()
    def forward(self, x):
        return self.change(x)
"""
MODELS = {
    "normalised": "return self.net(x * 0.25 + 0.5)",
    "a dictionary": "return {'out': self.net(x), 'loss': x.sum()}",
    "a tuple": "z = self.net(x); return z, z[:, :3]",
    "more classes": "z = self.net(x); more = z.new_ones(len(x), 7); "
    "return torch.cat([z[:, 5:], more, z[:, :5]], 1)",
}


@pytest.fixture
def evaluated(net_file, tmp_path, monkeypatch, capsys):
    """Runs ``eval`` on a model that returns what is said; gives the record."""
    monkeypatch.chdir(tmp_path)

    def run(forward: str, *options: str, data: str = "digits", code: int = 0):
        source = HEAD + f"    def change(self, x):\n        {forward}\n"
        Path("other.py").write_text(source)
        words = ["--dataset", data, "--attack", "pgd3", "--n", "40", "--eps", "0.1", *options]
        done = main(["eval", "--model", "other.py:Wrapped", "--quiet", *words])
        told = capsys.readouterr()
        assert done == code, told.err
        if code:
            return told.err
        return folders.every(tmp_path / "results")[-1]

    return run


@pytest.fixture
def plain(net_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--dataset", "digits", "--attack", "pgd3", "--n", "40", "--eps", "0.1"]
    assert main(["eval", "--model", "net.py:make", "--quiet", *words]) == 0
    return folders.every(tmp_path / "results")[-1]


@pytest.mark.parametrize(
    ("kind", "options", "settings"),
    [
        ("normalised", ["--mean", "1/2", "--std", "0.25"], {"mean": [0.5], "std": [0.25]}),
        ("a dictionary", [], {"output": "out"}),
        ("a tuple", [], {"output": "0"}),
        (
            "more classes",
            ["--classes", "12,13,14,15,16,0,1,2,3,4"],
            {"classes": [12, 13, 14, 15, 16, 0, 1, 2, 3, 4]},
        ),
    ],
)
def test_what_is_put_around_gives_the_verdicts_of_the_plain_model(
    plain, evaluated, kind, options, settings
):
    run = evaluated(MODELS[kind], *options)
    assert run.clean_accuracy == plain.clean_accuracy
    assert run.attacks["pgd3"].correct == pytest.approx(plain.attacks["pgd3"].correct, abs=1)
    assert run.config["model"] == {"name": "other.py:Wrapped", **settings}
    assert run.weights != plain.weights
    assert run.clean_trust == plain.clean_trust


def test_other_settings_make_another_model_in_the_record(evaluated, capsys):
    one = evaluated(MODELS["normalised"], "--mean", "0.5", "--std", "0.25", "--name", "one")
    two = evaluated(MODELS["normalised"], "--mean", "0.5", "--std", "0.2", "--name", "two")
    assert one.weights != two.weights
    assert main(["report", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["model"] for row in rows} == {"-:std=[0.2]", "-:std=[0.25]"}


def test_a_missing_normalisation_is_found_and_the_option_named(evaluated):
    expects_signed = "return self.net((x + 1) / 2)"
    run = evaluated(expects_signed, "--name", "wrong")
    (finding,) = (f for f in run.findings if f.check == "input-scale")
    assert "(--normalize signed)" in finding.message
    assert (run.attacks["pgd3"].trust, run.clean_trust) == ("withheld", "withheld")
    mended = evaluated(expects_signed, "--normalize", "signed", "--name", "right")
    assert run.clean_accuracy < mended.clean_accuracy
    assert all(each.check != "input-scale" for each in mended.findings)


def test_one_logit_on_two_classes(tmp_path, evaluated):
    digits = Digits().load("test", tmp_path)
    rows = (digits.y < 2).nonzero()[:, 0]
    arrays = {}
    for split in ("train", "test"):
        arrays |= {f"x_{split}": digits.x[rows].numpy(), f"y_{split}": digits.y[rows].numpy()}
    np.savez(tmp_path / "two.npz", **arrays)
    run = evaluated("z = self.net(x); return z[:, 1:2] - z[:, :1]", data="npz:two.npz")
    assert run.config["model"]["logits"] == "0 and z"
    assert run.clean_accuracy > 0.9
    assert any("0 and z" in note for note in run.notes)


@pytest.mark.parametrize(
    ("forward", "options", "message"),
    [
        ("z = self.net(x); return z, z", [], "which are its logits (B, K)?"),
        (MODELS["more classes"], [], "the data set has 10; --classes says which"),
        (MODELS["normalised"], ["--mean", "0.5"], "--mean and --std go together"),
        (MODELS["normalised"], ["--std", "0", "--mean", "1"], "--std 0: give numbers above 0"),
        (MODELS["normalised"], ["--normalize", "cifar"], "did you mean 'cifar10'?"),
        (
            MODELS["normalised"],
            ["--normalize", "imagenet"],
            "--mean has 3 values, the images have 1",
        ),
        (MODELS["normalised"], ["--classes", "none.json"], "none.json: No such file"),
        (
            MODELS["normalised"],
            ["--normalize", "none", "--mean", "0", "--std", "1"],
            "--normalize and --mean/--std say the same",
        ),
    ],
)
def test_mistakes_are_one_line(evaluated, forward, options, message):
    told = evaluated(forward, *options, code=2)
    assert message in told
    assert len(told.strip().splitlines()) == 1
    assert not Path("results").exists() or not list(Path("results").iterdir())


def test_options_of_a_model_go_with_a_model(capsys):
    assert main(["eval", "--weights-key", "ema", "--attack", "pgd2"]) == 2
    assert "--weights-key goes with --model" in capsys.readouterr().err


def test_a_registered_architecture_takes_another_normalisation(tmp_path, digits_model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = digits_model[0]
    torch.save({"net": network.state_dict(), "acc": np.float64(1)}, tmp_path / "w.pt")
    words = ["--model", "digits-cnn:width=8", "--weights", "w.pt", "--dataset", "digits"]
    words += ["--attack", "fgsm", "--n", "20", "--quiet", "--no-checks"]
    splits = []
    load = Digits.load
    monkeypatch.setattr(Digits, "load", lambda *of: splits.append(of[1]) or load(*of))
    for options in (["--name", "a"], ["--name", "b", "--mean", "5", "--std", "0.1"]):
        assert main(["eval", *words, *options]) == 0
    own, other = folders.every(tmp_path / "results")
    assert "statistics" not in own.config["model"]
    assert other.config["model"]["statistics"] == [[5.0], [0.1]]
    assert own.weights != other.weights
    assert own.clean_accuracy > other.clean_accuracy
    assert {*splits} == {"test"}  # the training images say nothing that the weights do not


def test_a_model_with_a_memory_is_not_asked_before_its_checks(evaluated):
    """What it returns is looked at on a copy: a counter in the model still stands at none."""
    forward = dedent(
        """\
        self.calls = getattr(self, "calls", 0) + 1
                return self.net(x) if self.calls > 1 else self.net(x).flip(1)"""
    )
    run = evaluated(forward)
    assert run.attacks["pgd3"].trust != "sound"


def test_weights_that_are_drawn_at_random_are_drawn_again_for_a_copy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("random_net.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    given = load_given(ModelOptions(model="random_net.py:make"), tmp_path, lambda: None)
    before = torch.get_rng_state()
    copy = given.copy()
    assert torch.equal(copy[1].weight, given.model[1].weight)
    assert torch.equal(torch.get_rng_state(), before)
