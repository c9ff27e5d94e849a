"""Attacks with a target in whole evaluations: on another model's images, on a randomised model,
interrupted, and told while they run."""

from pathlib import Path

import numpy as np
import pytest
import torch

from robustbench_cli.commands.display import Display
from robustbench_cli.commands.eval_config import build_attacks, chosen_attacks, resolve_eval_config
from robustbench_cli.commands.eval_request import EvalRequest, Subject
from robustbench_cli.commands.evaluate import run_evaluation
from robustbench_cli.commands.targeted import check_images_to_take
from robustbench_cli.commands.workspace import Workspace
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Spec
from robustbench_cli.data import DATASETS
from robustbench_cli.evaluation.journal import Journal
from robustbench_cli.models.weights import digest
from robustbench_cli.runs import records

BASE = {"dataset": {"name": "digits"}, "model": {"name": "net"}, "defense": {}}


def evaluated(out, net, *attacks, source=None, display=None, **more):
    """The record and the verdicts, on 40 digits at eps 0.2."""
    typed = {"attack": chosen_attacks(list(attacks), None, {}), "threat": {"eps": 0.2}, "n": 40}
    typed |= {"source": {"id": "other", "weights": digest(source)}} if source else {}
    request = EvalRequest(
        subject=Subject(model=net, name="net", weights=digest(net)),
        source=source and Subject(model=source, name="other", weights=digest(source)),
        config=resolve_eval_config(BASE, {**typed, **more}, []),
        workspace=Workspace(out=out, device="cpu"),
        command=["x"],
    )
    folder = run_evaluation(request, display or Display())
    with np.load(folder / "examples.npz") as arrays:
        return records.read(folder), {key: arrays[key] for key in arrays.files}


@pytest.fixture
def net(digits_model):
    return digits_model[0]


def test_another_model_decides_whether_its_images_are_the_target(tmp_path, net):
    torch.manual_seed(3)
    other = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
    label = "pgd10:target=next"
    moved, arrays = evaluated(tmp_path, net, label, source=other)
    white, _ = evaluated(tmp_path, net, label)
    assert moved.targeted[label].reached < white.targeted[label].reached
    aims, tried = arrays[f"{label}/target"], arrays[f"{label}/target"] >= 0
    reached = tried & (arrays[f"{label}/prediction"] == aims)
    assert moved.targeted[label].reached == reached.sum()
    assert moved.targeted[label].n == white.targeted[label].n == tried.sum()


def test_the_least_likely_class_is_that_of_the_source_and_costs_a_pass(tmp_path, net):
    torch.manual_seed(3)
    other = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
    next_, least = (f"fgsm:target={rule}" for rule in ("next", "least-likely"))
    run, arrays = evaluated(tmp_path, net, next_, least, source=other)
    x, y = images_of(arrays)
    lowest, aims = other(x).argmin(1).numpy(), arrays[f"{least}/target"]
    right = net(x).argmax(1).numpy() == y
    assert np.array_equal(aims, np.where(right & (lowest != y), lowest, -1))
    assert [note for note in run.notes if "least likely class is that of the source" in note]
    tried = aims >= 0
    costs = [np.unique(arrays[f"{label}/forwards"][tried]) for label in (next_, least)]
    assert costs[1].tolist() == (costs[0] + 1).tolist()
    assert (arrays[f"{least}/forwards"][right & ~tried] == 1).all()
    white, _ = evaluated(tmp_path, net, least)
    assert not [note for note in white.notes if "least likely" in note]


def test_target_images_come_from_the_whole_test_split(tmp_path, net):
    label = "feaatt2:steps=5"
    _, few = evaluated(tmp_path, net, label, n=6)
    _, many = evaluated(tmp_path, net, label, n=30)
    for key in ("prediction", "step", "norm", "forwards"):
        assert np.array_equal(few[f"{label}/{key}"], many[f"{label}/{key}"][:6]), key
    _, threes = evaluated(tmp_path, net, label, subset={"classes": ["3"]}, n=8)
    assert (threes[f"{label}/forwards"] > 2).any()


@pytest.mark.parametrize(
    ("attack", "labels", "why"),
    [
        ("feaatt2", [3, 3], "feaatt2' takes images of other classes, and all 2 .*have class '3'"),
        ("ensemble:fgsm/feaatt2", [3, 3], "takes images of other classes"),
        ("feaatt2:target=4", [3, 5], "none of the 2 images that there are has class '4'"),
        ("feaatt2:target=random", [3, 5], "has class '0': choose another target"),
        ("feaatt2:target=5", [3, 5], ""),
        ("fgsm:target=4", [3, 3], ""),
        ("feaatt2", [3, 5], ""),
    ],
)
def test_target_images_that_are_not_there_are_missed_before_anything_runs(attack, labels, why):
    typed = {"attack": chosen_attacks([attack], None, {})}
    config = resolve_eval_config(BASE, typed, [])
    attacks = build_attacks(config, 10)
    names = [str(each) for each in range(10)]
    if not why:
        check_images_to_take(attacks, config.threat, torch.tensor(labels), names)
        return
    with pytest.raises(UserError, match=why):
        check_images_to_take(attacks, config.threat, torch.tensor(labels), names)


def images_of(arrays):
    """The images and labels of the digits that were evaluated."""
    test = DATASETS.build(Spec("digits")).load("test", Path())
    rows = torch.from_numpy(arrays["index"]).long()
    return test.images(rows), test.y[rows].numpy()


class Noisy(torch.nn.Module):
    """The net on images with noise, drawn anew at every call."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x + 0.2 * torch.randn_like(x))


def test_of_a_randomised_model_the_share_of_draws_counts(tmp_path, net):
    torch.manual_seed(0)
    label = "pgd5:target=3"
    found, arrays = evaluated(tmp_path, Noisy(net), label, n=16)
    tried = arrays[f"{label}/target"] >= 0
    missed = arrays[f"{label}/share"][tried]
    assert ((missed > 0) & (missed < 1)).any()
    assert found.targeted[label].success_rate == pytest.approx(float((1 - missed).mean()))


class Told(Display):
    """The last share that was told of each attack, and what it was called."""

    def __init__(self):
        self.last, self.called = {}, {}

    def judging(self, label, n, what="robust accuracy"):
        self._label = label.split(" ")[0]
        self.called[self._label] = what

    def judged(self, done, accuracy):
        self.last[self._label] = accuracy


def test_what_is_told_meanwhile_is_called_what_it_is_and_ends_as_recorded(tmp_path, net):
    told = Told()
    found, _ = evaluated(tmp_path, net, "square40:target=random", "pgd5", display=told)
    outcome = found.targeted["square40:target=random"]
    assert told.last["square40:target=random"] == pytest.approx(outcome.success_rate)
    assert told.called["square40:target=random"] == "targets reached"
    assert told.called["pgd5"] == "robust accuracy"


def test_an_interrupted_attack_goes_on_to_the_same_verdicts(tmp_path, net, monkeypatch):
    label = "pgd10:target=random,restarts=3"
    whole, expected = evaluated(tmp_path / "whole", net, label)
    moved, times = Journal.moved, []

    def stopping(self, name, column, rows):
        moved(self, name, column, rows)
        self.flush(name, column)
        times.append(name)
        if times.count("1") == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "moved", stopping)
    with pytest.raises(KeyboardInterrupt):
        evaluated(tmp_path / "cut", net, label, batch_size=8)
    monkeypatch.setattr(Journal, "moved", moved)
    resumed, arrays = evaluated(tmp_path / "cut", net, label, batch_size=8)
    assert len([*(tmp_path / "cut").iterdir()]) == 1
    for key in ("target", "prediction", "share", "by"):
        assert np.array_equal(arrays[f"{label}/{key}"], expected[f"{label}/{key}"]), key
    assert resumed.targeted[label].reached == whole.targeted[label].reached > 0


def test_nothing_to_attack_is_no_number(tmp_path, net):
    """Every image of the class that is the target: a share of none."""

    class Always(torch.nn.Module):
        def forward(self, x):
            return net(x) * 0 + torch.tensor([9.0] + [0.0] * 9)

    found, _ = evaluated(tmp_path, Always(), "pgd2:target=0")
    outcome = found.targeted["pgd2:target=0"]
    assert (outcome.n, outcome.reached, outcome.success_rate) == (0, 0, None)
    assert outcome.of_the_target + outcome.wrong == 40
