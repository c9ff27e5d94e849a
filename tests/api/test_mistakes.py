"""Mistakes of a caller: one clear sentence each, and nothing left behind."""

import re
import sys

import numpy as np
import pytest
import torch
from torch import nn

from robustbench_cli import Threat, UserError, attack, evaluate, load_run
from robustbench_cli.attacks.pgd import PGD
from robustbench_cli.cli import main

EPS = Threat("Linf", 0.12)


def spoiled(images, value):
    images = images.clone()
    images[3, 0, 2, 2] = value
    return images


IMAGES = {
    "NaN": (lambda x: spoiled(x, torch.nan), "images have NaN or infinite pixels"),
    "infinite": (lambda x: spoiled(x, torch.inf), "images have NaN or infinite pixels"),
    "normalised": (lambda x: x * 2 - 1, "images must be in [0, 1], got -1 to 1; a model that"),
    "0 to 255": (lambda x: x * 255, "images must be in [0, 1], got 0 to 255; divide by 255"),
    "integers": (lambda x: x.long(), "images must be uint8 or float in [0, 1], got torch.int64"),
    "integer array": (
        lambda x: x.long().numpy(),
        "images must be uint8 or float in [0, 1], got int64",
    ),
    "no channels": (lambda x: x[:, 0], "images must be (N, C, H, W), got (24, 8, 8)"),
    "an odd array": (
        lambda x: x.repeat(1, 5, 1, 1).numpy(),
        "(N, C, H, W) or (N, H, W, C) with 1 or 3 channels, got (24, 5, 8, 8)",
    ),
    "an ambiguous array": (
        lambda x: x[..., :1].numpy(),
        "(N, C, H, W) or (N, H, W, C) with 1 or 3 channels, got (24, 1, 8, 1)",
    ),
    "a list": (list, "images must be a tensor, an array or a DataLoader, got list"),
    "nothing": (lambda x: None, "images must be a tensor, an array or a DataLoader, got NoneType"),
    "none": (lambda x: x[:0], "0 images and 24 labels"),
    "too many channels": (
        lambda x: x.repeat(1, 3, 1, 1),
        "the model cannot take images of shape (3, 8, 8)",
    ),
}
LABELS = {
    "too few": (lambda y: y[:5], "24 images and 5 labels"),
    "too high": (lambda y: y + 5, "labels must be 0..9, one for each class of the model, got 5.."),
    "negative": (lambda y: y - 1, "labels must be 0..9, one for each class of the model, got -1.."),
    "floats": (lambda y: y.float(), "labels must be whole numbers (N), got float32 (24,)"),
    "one-hot": (lambda y: torch.eye(10)[y].long(), "whole numbers (N), got int64 (24, 10)"),
    "names": (lambda y: ["cat"] * 24, "labels must be whole numbers (N), got <U3 (24,)"),
    "missing": (lambda y: None, "labels are missing"),
}
SETTINGS = {
    "unknown attack": ({"attacks": "pgdd"}, "unknown attack 'pgdd'; did you mean 'pgd'?"),
    "unknown parameter": (
        {"attacks": "pgd:stepz=3"},
        "attack 'pgd' has no parameter 'stepz'; did you mean 'step'?",
    ),
    "a bad dataclass": ({"attacks": [PGD(steps=0)]}, "attack 'pgd', parameter 'steps'"),
    "given twice": ({"attacks": ["pgd5", "pgd5"]}, "attack 'pgd5' is given twice"),
    "none": ({"attacks": []}, "name an attack"),
    "no attack": ({"attacks": [7]}, "an attack is a name such as 'pgd20' or a dataclass"),
    "another norm": (
        {"attacks": "cw-l2", "threat": EPS},
        "attack 'cw-l2' is an attack in L2, the threat is Linf",
    ),
    "no threat": ({"threat": 8 / 255}, 'a threat is given as Threat("Linf", 8 / 255), got 0.03'),
    "a mask unknown": ({"threat": Threat("Linf", 0.1, "bx:1")}, "unknown mask 'bx'"),
    "precision": ({"precision": "fast"}, "precision: Input should be 'exact' or 'auto'"),
    "batch size": ({"batch_size": 0}, "batch_size: Input should be greater than or equal to 1"),
    "a vast batch": ({"batch_size": 10**20}, "batch_size: Input should be less than or equal to"),
    "seed": ({"seed": -1}, "seed: Input should be greater than or equal to 0"),
    "a device": ({"device": "cuda:99"}, "no CUDA device 'cuda:99'"),
}


def refused(message, out, *args, **options):
    """Check that both functions refuse this, with this sentence, and leave nothing."""
    chosen = {"attacks": "pgd3", "threat": EPS, **options}
    with pytest.raises(UserError, match=re.escape(message)) as found:
        evaluate(*args, out=out, **chosen)
    assert "\n" not in str(found.value)
    assert not list(out.iterdir())
    method = chosen.pop("attacks")
    if isinstance(method, str):
        with pytest.raises(UserError, match=re.escape(message)):
            attack(method, *args, **chosen)


@pytest.mark.parametrize("case", IMAGES)
def test_images(case, net, images, labels, tmp_path):
    make, message = IMAGES[case]
    refused(message, tmp_path, net, make(images), labels)


@pytest.mark.parametrize("case", LABELS)
def test_labels(case, net, images, labels, tmp_path):
    make, message = LABELS[case]
    refused(message, tmp_path, net, images, make(labels))


@pytest.mark.parametrize("case", SETTINGS)
def test_settings(case, net, images, labels, tmp_path):
    options, message = SETTINGS[case]
    refused(message, tmp_path, net, images, labels, **options)


def test_a_loader(net, images, labels, tmp_path):
    pairs = [(images, labels)]
    for loader, y, message in (
        (iter(pairs), labels, "a DataLoader yields its own labels: leave y out"),
        (iter([images]), None, "must yield pairs (images, labels), got Tensor"),
        (iter([(images, labels, labels)]), None, "must yield pairs (images, labels), got 3 parts"),
        (iter([]), None, "no images"),
        (iter([(images, labels), (images[..., :4], labels)]), None, "images of one shape"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            evaluate(net, loader, y, attacks="pgd3", threat=EPS, out=tmp_path)
    assert not list(tmp_path.iterdir())


class Returns(nn.Module):
    """A model that makes something else of the digits net's logits."""

    def __init__(self, net, change):
        super().__init__()
        self.net, self.change = net, change

    def forward(self, x):
        return self.change(self.net(x))


MODELS = {
    "NaN": (lambda z: z * torch.nan, "the model returns NaN or infinite logits on clean images"),
    "no gradient": (lambda z: z.detach(), "have no gradient with respect to the images"),
    "a tuple": (lambda z: (z, z), "the model returns tuple with 0: (8, 10), 1: (8, 10): which"),
    "an exit": (lambda z: sys.exit(), "the model's own code ended the program (SystemExit)"),
    "one number": (lambda z: z.sum(1), "the model must return logits"),
    "an error": (lambda z: z @ z, "the model cannot take images of shape (1, 8, 8): RuntimeError"),
}


@pytest.mark.parametrize("case", MODELS)
def test_a_model(case, net, images, labels, tmp_path):
    change, message = MODELS[case]
    refused(message, tmp_path, Returns(net, change), images, labels)


def test_an_exit_under_attack(net, images, labels, tmp_path):
    passes = []

    def late(z):
        passes.append(z)
        return sys.exit() if len(passes) > 6 else z

    for call in (evaluate, lambda *given, attacks, **more: attack(attacks, *given, **more)):
        passes.clear()
        with pytest.raises(UserError, match="the model's own code ended the program"):
            call(Returns(net, late), images, labels, attacks="pgd9", threat=EPS)


def test_what_is_no_attack(net, images, labels):
    with pytest.raises(UserError, match="an attack is a name such as 'pgd20' or a dataclass"):
        attack(7, net, images, labels, threat=EPS)
    with pytest.raises(UserError, match="an attack is a name such as 'pgd20' or a dataclass"):
        evaluate(net, images, labels, attacks=7, threat=EPS)


def test_what_is_no_model(images, labels, tmp_path):
    said = "the model must be an nn.Module or a name such as 'timm:resnet18', got ufunc"
    refused(said, tmp_path, np.sin, images, labels)


def test_too_few_classes_for_the_targeted_ratio(net, images, labels, tmp_path):
    three = Returns(net, lambda z: z[:, :3])
    message = (
        "uses the DLR loss, which needs at least 4 classes; the data set has 3: use apgd-margin"
    )
    for name in ("apgd-t", "autoattack-reference"):
        refused(message, tmp_path, three, images, labels % 3, attacks=name)


def test_a_suite_is_not_one_attack(net, images, labels):
    with pytest.raises(UserError, match=r"'first-look' is a suite of 3 attacks: name one of them"):
        attack("first-look", net, images, labels, threat=EPS)


def test_threats():
    for args, message in (
        (("linf", 0.1), "norm must be L0, L1, L2, Linf, patch or spatial, got 'linf'"),
        (("Linf", "8/255"), "eps must be a number such as 8 / 255, got '8/255'"),
        (("Linf", 0), "eps must be positive, got 0"),
        (("Linf", float("nan")), "eps must be positive, got nan"),
        (("Linf", 8), "did you mean '8/255'?"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            Threat(*args)


def test_the_sentences_are_the_command_lines(net, images, labels, tmp_path, capsys):
    out = ["--out", str(tmp_path)]
    small = ["--epochs", "1", "--set", "train.limit=64", "--set", "train.probe=0", "--quiet"]
    assert main(["train", "standard", *small, *out]) == 0
    for attacks in ("pgdd", "pgd:stepz=3", "cw-l2", "pgd:steps=x"):
        capsys.readouterr()
        assert main(["eval", "--attack", attacks, *out]) == 2
        with pytest.raises(UserError) as found:
            evaluate(net, images, labels, attacks=attacks, threat=EPS)
        assert str(found.value) in capsys.readouterr().err


def test_runs_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="no train run 'mine'"):
        load_run("mine", results=tmp_path)
    with pytest.raises(UserError, match="no finished train run"):
        load_run(results=tmp_path)
