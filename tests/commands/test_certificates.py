"""Certificates of a trained net on real digits: figures, and what is left after an interrupt."""

import math
import re
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from robustbench_cli.certificates.smoothing import Smoothing
from robustbench_cli.commands.display import Display
from robustbench_cli.commands.eval_config import (
    chosen_attacks,
    chosen_certificates,
    resolve_eval_config,
)
from robustbench_cli.commands.eval_request import EvalRequest, Subject
from robustbench_cli.commands.evaluate import run_evaluation
from robustbench_cli.commands.workspace import Workspace
from robustbench_cli.core.errors import RunError, UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.data import DATASETS
from robustbench_cli.evaluation import journal
from robustbench_cli.models.weights import digest
from robustbench_cli.runs import folders, records

BASE = {"dataset": {"name": "digits"}, "model": {"name": "net"}, "defense": {}}
SHORT = "smoothing:n=400,n0=50,alpha=0.01"


def config(*certificates, attacks=(), options=None, **more):
    typed = {
        "attack": chosen_attacks(list(attacks), None, {}) if attacks else {},
        "certify": chosen_certificates(list(certificates), options or {}),
        "threat": {"eps": 2 / 255},
        "n": 24,
    }
    return resolve_eval_config(BASE, {**typed, **more}, [])


def certified(out, net, chosen, display=None):
    """The record and the arrays."""
    request = EvalRequest(
        subject=Subject(model=net, name="net", weights=digest(net)),
        config=chosen,
        workspace=Workspace(out=out, device="cpu"),
        command=["x"],
    )
    folder = run_evaluation(request, display or Display())
    with np.load(folder / "examples.npz") as arrays:
        return records.read(folder), {key: arrays[key] for key in arrays.files}


class Watching(Display):
    """What was told of certificates; Ctrl-C after so many calls."""

    def __init__(self, calls=math.inf):
        self.told, self.started, self._left = [], [], calls

    def judging(self, label, n, what="robust accuracy"):
        self.started.append((label, n, what))

    def judged(self, done, accuracy):
        self.told.append((done, accuracy))
        self._left -= self.started[-1][0] != "clean"
        if self._left < 0:
            raise KeyboardInterrupt


@pytest.fixture
def net(digits_model):
    return digits_model[0]


def test_the_figures_are_those_of_the_examples(tmp_path, net):
    display = Watching()
    found, arrays = certified(tmp_path, net, config(SHORT), display)
    proof, label = found.certificates[SHORT], arrays["label"]
    assert (proof.n, proof.norm, proof.forwards) == (24, "L2", 24 * 450)
    prediction, radius = arrays[f"{SHORT}/prediction"], arrays[f"{SHORT}/radius"]
    right = arrays[f"{SHORT}/certified"] == label
    assert (arrays[f"{SHORT}/votes"].sum(2) == [50, 400]).all()
    assert proof.correct == (prediction == label).sum() > 12
    assert proof.accuracy == proof.correct / 24
    assert proof.abstained == pytest.approx((prediction == -1).mean())
    assert proof.uncertified == pytest.approx((arrays[f"{SHORT}/certified"] == -1).mean())
    assert proof.mean_radius == pytest.approx(radius[right].sum() / 24)
    within = {(each.norm, each.eps): each for each in proof.within}
    assert list(within) == [*(("L2", r) for r in (0, 0.25, 0.5, 0.75, 1)), ("Linf", 2 / 255)]
    for each in proof.within:
        assert each.correct == (right & (radius >= each.radius)).sum(), each
        assert each.accuracy == each.correct / 24
    assert within["Linf", 2 / 255].radius == pytest.approx(2 / 255 * 8)
    counts = [within["L2", r].correct for r in (0, 0.25, 0.5)]
    assert counts[0] > counts[1] > counts[2]
    # What the votes say is what the record says.
    again = Smoothing(n=400, n0=50, alpha=0.01).certify({"votes": arrays[f"{SHORT}/votes"]})
    assert np.array_equal(again.radius, radius)
    assert display.started == [("clean", 24, "accuracy"), (SHORT, 24, "certified accuracy")]
    assert display.told[-1] == (24, pytest.approx(right.mean()))


def test_no_certificate_promises_more_than_an_attack_breaks(tmp_path, net):
    """The smoothed classifier is attacked where it is certified, by its own noisy copies."""
    _, arrays = certified(tmp_path, net, config(SHORT))
    split = DATASETS.build(Spec("digits")).load("test", tmp_path)
    smoothing = Smoothing(n=400, n0=50, alpha=0.01)
    for row in (arrays[f"{SHORT}/radius"] > 0.2).nonzero()[0][:4]:
        x, radius = split.images(slice(row, row + 1)), float(arrays[f"{SHORT}/radius"][row])
        each = torch.arange(400)
        noise = Noise(9, torch.full((400,), int(row))).at(each)
        leaf = x.clone().requires_grad_()
        copies = smoothing.copies(net, leaf.expand(400, -1, -1, -1), noise, each)
        top = int(arrays[f"{SHORT}/certified"][row])
        (-net(copies).log_softmax(1)[:, top].mean()).backward()
        moved = x + 0.99 * radius * leaf.grad / leaf.grad.norm()
        votes = net(smoothing.copies(net, moved.expand(400, -1, -1, -1), noise, each)).argmax(1)
        assert int(votes.mode().values) == top


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, digits_model):
    chosen = config(SHORT, batch_size=300)
    return certified(tmp_path_factory.mktemp("whole"), digits_model[0], chosen)


@pytest.mark.parametrize("after", [0, 3, 23])
def test_an_interrupted_certificate_goes_on_to_the_same_figures(
    after, tmp_path, net, monkeypatch, uninterrupted
):
    monkeypatch.setattr(journal, "FLUSH", -1.0)  # write whatever comes on
    chosen = config(SHORT, batch_size=300)
    whole, theirs = uninterrupted
    with pytest.raises(KeyboardInterrupt):
        certified(tmp_path / "cut", net, chosen, Watching(after))
    (cut,) = folders.every(tmp_path / "cut")
    assert cut.status == "interrupted"
    assert not cut.certificates
    display = Watching()
    resumed, mine = certified(tmp_path / "cut", net, chosen, display)
    assert (resumed.id, resumed.status) == (cut.id, "ok")
    # What the journal holds is not asked again.
    assert len([done for done, _ in display.told]) <= 24 - after
    assert mine.keys() == theirs.keys()
    for key, values in theirs.items():
        assert np.array_equal(mine[key], values), key
    plain = {"seconds": 0.0}
    pairs = (run_.certificates[SHORT].__dict__ | plain for run_ in (resumed, whole))
    assert next(pairs) == next(pairs)


def test_attacks_and_several_certificates_share_an_evaluation(tmp_path, net):
    labels = ["smoothing:n=50,sigma=0.1", "smoothing:n=50,sigma=0.5"]
    found, arrays = certified(tmp_path, net, config(*labels, attacks=["fgsm"]))
    alone, theirs = certified(tmp_path, net, config(labels[1], batch_size=7))
    assert list(found.certificates) == labels
    assert list(found.attacks) == ["fgsm"]
    assert found.worst_case_accuracy == found.attacks["fgsm"].robust_accuracy
    assert alone.worst_case_accuracy == alone.clean_accuracy == found.clean_accuracy
    assert found.seconds == pytest.approx(
        found.attacks["fgsm"].seconds + sum(p.seconds for p in found.certificates.values())
    )
    for name in ("prediction", "certified", "radius", "votes"):
        mine = arrays[f"{labels[1]}/{name}"]
        assert np.array_equal(mine, theirs[f"{labels[1]}/{name}"]), name
    assert (arrays[f"{labels[0]}/votes"] != arrays[f"{labels[1]}/votes"]).any()


def test_the_evaluation_s_own_ball_is_reported_in_any_norm(tmp_path, net):
    found, _ = certified(
        tmp_path, net, config("smoothing:n=50", n=4, threat={"norm": "L1", "eps": 0.3})
    )
    (own,) = (w for w in found.certificates["smoothing:n=50"].within if w.norm == "L1")
    assert (own.eps, own.radius) == (0.3, 0.3)  # an L1 ball lies inside the L2 ball of its radius


def test_a_radius_that_no_votes_can_prove_is_said(tmp_path, net):
    found, _ = certified(tmp_path, net, config(SHORT, n=2, threat={"eps": 0.15}))
    (note,) = (note for note in found.notes if SHORT in note)
    furthest = Smoothing(n=400, alpha=0.01).max_radius((1, 8, 8))
    assert f"no more than L2 {furthest:.4f}" in note
    assert "Linf 0.15, which needs L2 1.2000" in note
    few, _ = certified(tmp_path, net, config("smoothing:n=5", n=2))
    assert any("nothing can be certified" in note for note in few.notes)


@pytest.mark.parametrize(
    ("certificates", "more", "message"),
    [
        (["smoothing", "smoothing"], {}, "certificate 'smoothing' is given twice"),
        (["smoothing:sigma=1"], {"options": {"sigma": "0.5"}}, "says it, too"),
        (["smoothing"], {"options": {"eot": 3}}, "--eot: none of these certificates takes it"),
        ([], {"options": {"sigma": "0.5"}}, "add --certify smoothing"),
        (["smoothing"], {"attacks": ["fgsm"], "sweep": "eps=0,0.1"}, "goes without --sweep"),
        (["smoothing"], {"attacks": ["fgsm"], "source": {"id": "x"}}, "goes without --source"),
    ],
)
def test_what_makes_no_sense_is_one_line(certificates, more, message):
    with pytest.raises(UserError, match=message):
        config(*certificates, **more)


def test_bounds_and_attacks_of_one_model_stand_side_by_side(tmp_path, net):
    """Whatever is certified stands under every attack; the certified share is never the larger."""
    chosen = config("crown-ibp:tests=4", attacks=["pgd20", "fmn"], threat={"eps": 0.004})
    found, arrays = certified(tmp_path, net, chosen)
    proof, label = found.certificates["crown-ibp:tests=4"], arrays["label"]
    assert (proof.norm, proof.n, proof.forwards, proof.says_nothing) == ("Linf", 24, 24, False)
    assert [each.eps for each in proof.within] == [0, 0.001, 0.002, 0.003, 0.004]
    counts = [each.correct for each in proof.within]
    assert counts == sorted(counts, reverse=True)
    assert counts[1] > counts[-1] > 0
    assert proof.correct == round(found.clean_accuracy * 24)
    assert counts[-1] <= min(each.correct for each in found.attacks.values())
    sure = (arrays["crown-ibp:tests=4/certified"] == label) & (
        arrays["crown-ibp:tests=4/radius"] >= 0.004
    )
    assert sure.sum() == counts[-1]
    assert (arrays["pgd20/share"][sure] == 1).all()
    # The nearest adversarial image is beyond every certified radius.
    broken = arrays["fmn/by"] >= 0
    assert broken.sum() > 5
    beyond = arrays["fmn/norm"] > arrays["crown-ibp:tests=4/radius"]
    assert beyond[broken].all()


@pytest.fixture
def wrong_certificate():
    """A planted mistake: a certificate that believes every margin to be positive."""
    from robustbench_cli.certificates import CERTIFICATES
    from robustbench_cli.certificates.ibp import IntervalBounds

    @CERTIFICATES.register("believer")
    @dataclass(frozen=True, kw_only=True)
    class Believer(IntervalBounds):
        def lower(self, graph, ball, y, classes):
            return super().lower(graph, ball, y, classes).abs() + 1

    yield
    del CERTIFICATES._entries["believer"]


@pytest.mark.parametrize("attack", ["pgd20", "fmn"])
def test_what_is_certified_and_broken_stops_the_run(attack, tmp_path, net, wrong_certificate):
    chosen = config("believer:tests=2", attacks=[attack], threat={"eps": 0.1})
    with pytest.raises(RunError) as caught:
        certified(tmp_path, net, chosen)
    message = str(caught.value)
    assert f"believer:tests=2 and {attack} contradict each other on " in message
    (failed,) = folders.every(tmp_path)
    assert failed.status == "failed"
    sure = failed.certificates["believer:tests=2"].within[-1].accuracy
    robust = failed.attacks[attack].robust_accuracy
    assert f"(believer:tests=2: {sure:.2%} within Linf 0.1, {attack}: " in message
    assert sure > robust
    image, proven, radius, found, norm = re.search(
        r"image (\d+) is certified as class (\d+) within Linf (\S+), but \S+ has one "
        r"of class (\d+) at Linf (\S+) ",
        message,
    ).groups()
    assert int(proven) != int(found)
    assert float(norm) <= float(radius) + 1e-6
    split = DATASETS.build(Spec("digits")).load("test", tmp_path)
    assert int(net(split.images(slice(int(image), int(image) + 1))).argmax()) == int(proven)


def test_votes_are_not_compared_with_attacks_on_the_model(tmp_path, net):
    """The smoothed classifier may stand where the model does not; that is said."""
    found, _ = certified(tmp_path, net, config(SHORT, attacks=["pgd20"], threat={"eps": 0.1}))
    assert found.status == "ok"
    (note,) = (note for note in found.notes if "compared" in note)
    assert note.startswith(f"{SHORT} certifies another predictor than the model that is attacked")
    alone, _ = certified(tmp_path / "alone", net, config(SHORT))
    assert not any("compared" in note for note in alone.notes)


def test_bounds_that_prove_nothing_say_so(tmp_path, net):
    found, arrays = certified(tmp_path, net, config("ibp", n=6, threat={"eps": 0.3}))
    proof = found.certificates["ibp"]
    assert proof.says_nothing
    assert (arrays["ibp/radius"] < 0.3 / 4).all()
    assert any(note.startswith("ibp says nothing about this model") for note in found.notes)
    some, _ = certified(tmp_path / "some", net, config("ibp", n=6, threat={"eps": 1e-4}))
    assert not some.certificates["ibp"].says_nothing


def test_an_interrupted_bound_goes_on_to_the_same_figures(tmp_path, net, monkeypatch):
    monkeypatch.setattr(journal, "FLUSH", -1.0)
    chosen = config("crown-ibp:tests=2", batch_size=5, threat={"eps": 0.003})
    whole, theirs = certified(tmp_path / "whole", net, chosen)
    with pytest.raises(KeyboardInterrupt):
        certified(tmp_path / "cut", net, chosen, Watching(2))
    resumed, mine = certified(tmp_path / "cut", net, chosen)
    assert mine.keys() == theirs.keys()
    assert all(np.array_equal(mine[key], values) for key, values in theirs.items())
    assert resumed.certificates["crown-ibp:tests=2"].within == (
        whole.certificates["crown-ibp:tests=2"].within
    )


def test_a_model_without_bounds_is_refused_before_anything_is_run(tmp_path):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.GELU(), torch.nn.Linear(64, 10))
    with pytest.raises(UserError, match=r"no bounds are known for GELU \(1\)"):
        certified(tmp_path, model, config("ibp", attacks=["pgd20"]))
    assert folders.every(tmp_path) == []
