"""Certificates by bounds: radii against the known ones, and against attacks on the nets."""

import numpy as np
import pytest
import torch
from torch import nn

from robustbench_cli.bounds import InputBall
from robustbench_cli.certificates import ABSTAINS, CERTIFICATES, ProofSubject
from robustbench_cli.certificates._bounding import BoundCertificate, MarginBounds
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.certify import Proofs
from robustbench_cli.evaluation.tensors import Tensors
from tests.bounds.nets import net

OWN = ["ibp", "crown-ibp", "crown"]
WEIGHT = torch.tensor([[0.6, -0.2, 0.3, 0.5]])


def plane(scale=1.0):
    """Class 1 on one side of a plane through the middle, class 0 on the other."""
    last = nn.Linear(4, 2)
    last.weight.data = scale * torch.cat([-WEIGHT, WEIGHT])
    last.bias.data = scale * torch.tensor([0.5, -0.5]) * WEIGHT.sum()
    return nn.Sequential(nn.Flatten(), last).eval().requires_grad_(False)


def subject(model, x, threat, classes, batch=64):
    ids = torch.arange(len(x))
    data = Tensors(x, torch.zeros(len(x), dtype=torch.long))
    return ProofSubject(
        model=model, data=data, noise=Noise(0, ids), classes=classes, threat=threat, batch=batch
    )


def proofs(certificate, about, rows=None):
    n = len(about.data.y)
    found = Proofs.empty(certificate, about, n)
    for evidence in certificate.evidence(about, torch.arange(n) if rows is None else rows):
        found.put(evidence, certificate)
    return found.arrays


def build(name, **params) -> BoundCertificate:
    return CERTIFICATES.build(Spec(name, params))


def points(distances):
    away = WEIGHT[0] / WEIGHT.norm()
    return (0.5 + torch.tensor(distances)[:, None] * away).view(-1, 1, 2, 2)


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_the_radius_of_a_plane_is_its_distance(name, norm):
    """|score| over the dual norm of the weights; found from below, to a 2^-20th of eps."""
    distances = [-0.3, -0.1, -0.01, 0.02, 0.25]
    x, dual = points(distances), {"Linf": 1.0, "L2": 2.0, "L1": torch.inf}[norm]
    truth = np.abs(distances) * float(WEIGHT.norm() / torch.linalg.vector_norm(WEIGHT, dual))
    found = proofs(build(name, tests=24), subject(plane(), x, Threat(norm, 0.05), 2))
    assert (found["prediction"] == (np.array(distances) > 0)).all()
    assert (found["certified"] == found["prediction"]).all()
    assert (found["radius"] < truth).all()
    assert found["radius"] == pytest.approx(truth, abs=1e-5, rel=1e-4)


@pytest.mark.parametrize("name", OWN)
def test_eps_itself_is_tested_first_and_its_quarters_next(name):
    """With two more tests the radius is a quarter of eps below it, or a power of two above."""
    x = points([0.004, 0.021, 0.033, 0.05, 0.09, 0.3])
    share = float(WEIGHT.norm() / WEIGHT.abs().sum())
    threat = Threat("Linf", 0.04 * share)
    found = proofs(build(name, tests=2), subject(plane(), x, threat, 2))
    assert (found["radius"] / threat.eps).tolist() == [0, 0.5, 0.75, 1, 2, 4]
    assert found["certified"].tolist() == [ABSTAINS, 1, 1, 1, 1, 1]
    own = [each.eps / threat.eps for each in build(name).reported(threat)]
    assert own == [0.25, 0.5, 0.75]


def test_a_radius_is_no_larger_than_any_ball():
    model = plane()
    model[1].weight.data.zero_()  # the bias decides, whatever the image
    model[1].bias.data = torch.tensor([1.0, 0.0])
    found = proofs(build("ibp", tests=12), subject(model, points([0.1]), Threat("Linf", 0.3), 2))
    assert found["radius"].tolist() == [1.0]


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize(("kind", "names"), [("strided", OWN), ("residual", OWN[:2])])
def test_no_attack_breaks_what_is_certified(kind, names, norm):
    """Attacks at the very radius that is certified for each image, on the net in float32."""
    names = [*names, *["zonotope"] * (norm == "Linf")]
    model, x = net(kind), torch.rand(3, 1, 8, 8)
    y = model(x).argmax(1)
    threat = Threat(norm, {"Linf": 0.01, "L2": 0.1}[norm])
    for name in names:
        found = proofs(build(name, tests=10), subject(model, x, threat, 4))
        assert (found["certified"] == y.numpy()).all()
        for row in range(3):
            ball = Threat(norm, float(found["radius"][row]))
            many = x[row].expand(100, 1, 8, 8)
            now = ball.random_start(many, Noise(1, torch.arange(100)))
            for _ in range(10):
                leaf = now.detach().requires_grad_()
                logits = model(leaf)
                assert (logits.argmax(1) == y[row]).all(), (name, row)
                loss = torch.nn.functional.cross_entropy(logits, y[row].expand(100))
                (grad,) = torch.autograd.grad(loss, leaf)
                now = ball.project(leaf + ball.eps / 3 * ball.steepest(grad), many).detach()


def test_the_tighter_certificate_certifies_further():
    model, x = net("strided"), torch.rand(4, 1, 8, 8)
    about = subject(model, x, Threat("Linf", 0.02), 4)
    radii = [proofs(build(name, tests=12), about)["radius"] for name in OWN]
    assert (radii[0] < radii[1]).all()
    assert (radii[1] <= radii[2]).all()


@pytest.mark.parametrize("name", OWN)
def test_results_depend_neither_on_the_batch_nor_on_the_other_examples(name):
    model, x = net("strided"), torch.rand(5, 1, 8, 8)
    usual = proofs(build(name), subject(model, x, Threat("Linf", 0.02), 4))
    for batch in (1, 2):
        about = subject(model, x, Threat("Linf", 0.02), 4, batch=batch)
        rows = torch.tensor([4, 1, 0, 3, 2])
        for key, values in proofs(build(name), about, rows).items():
            assert np.allclose(values, usual[key], rtol=0, atol=1e-12), key


def test_margins_are_kept_and_decide_on_eps():
    model, x = net("strided"), torch.rand(6, 1, 8, 8)
    threat = Threat("Linf", 0.004)
    found = proofs(build("crown"), subject(model, x, threat, 4))
    others = np.arange(4) != found["prediction"][:, None]
    assert (found["margins"][~others] == 0).all()
    assert (np.where(others, found["margins"], 1) > 0).all(1).tolist() == (
        found["radius"] >= threat.eps
    ).tolist()


def test_what_has_no_bounds_is_refused_before_anything_is_run():
    model = nn.Sequential(nn.Flatten(), nn.GELU(), nn.Linear(4, 2))
    with pytest.raises(UserError, match=r"no bounds are known for GELU \(1\)"):
        build("ibp").check(subject(model, points([0.1]), Threat(), 2))


@pytest.mark.parametrize(("norm", "eps"), [("L0", 3), ("patch", 2), ("spatial", 0.5)])
def test_only_balls_have_bounds(norm, eps):
    with pytest.raises(UserError, match=f"nothing is proven under --norm {norm}"):
        build("ibp").check(subject(plane(), points([0.1]), Threat(norm, eps), 2))


class Rounded(nn.Module):
    """A layer that autocast hides from torch.fx."""

    def __init__(self):
        super().__init__()
        self.inner = plane(scale=100.0)

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            return self.inner(x).float()


def test_a_model_that_answers_otherwise_than_its_layers_is_refused():
    about = subject(Rounded(), points([0.013, 0.1]), Threat(), 2)
    with pytest.raises(UserError, match="it answers otherwise than the layers"):
        build("ibp").check(about)
    with pytest.raises(UserError, match="it answers otherwise than the layers"):
        proofs(build("ibp"), about)


def test_a_model_without_an_answer_has_no_proof():
    model = plane()
    model[1].weight.data[0, 0] = torch.nan
    with pytest.raises(UserError, match="NaN or infinite logits"):
        proofs(build("ibp"), subject(model, points([0.1]), Threat(), 2))


class Nowhere(BoundCertificate):
    """Bounds that overflow."""

    def bounds(self, subject):
        from robustbench_cli.bounds import Interval

        def margins(ball: InputBall, y):
            return torch.full((len(y), 2), torch.nan)

        def answers(x):
            wide = torch.full((len(x), 2), torch.inf)
            return Interval(-wide, wide)

        return MarginBounds(margins=margins, answers=answers, at_once=7)


def test_bounds_that_overflow_prove_nothing():
    found = proofs(Nowhere(), subject(plane(), points([0.1]), Threat(), 2))
    assert found["certified"].tolist() == [ABSTAINS]
    assert found["radius"].tolist() == [0]


def test_zonotopes_are_for_linf_balls():
    with pytest.raises(UserError, match="is for Linf balls, got L2: use crown-ibp"):
        build("zonotope").check(subject(plane(), points([0.1]), Threat("L2", 0.1), 2))


def test_auto_lirpa_is_asked_for_in_one_line(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs auto_LiRPA, which PyPI has for old versions"):
        build("auto-lirpa").check(subject(plane(), points([0.1]), Threat(), 2))


def test_auto_lirpa_bounds_are_these():
    pytest.importorskip("auto_LiRPA")
    model, x = net("strided"), torch.rand(2, 1, 8, 8)
    about = subject(model, x, Threat("Linf", 0.004), 4)
    for name, method in zip(OWN, ["IBP", "CROWN-IBP", "CROWN"], strict=True):
        ours, theirs = proofs(build(name), about), proofs(build("auto-lirpa", method=method), about)
        # They take off another allowance for rounding.
        assert np.allclose(ours["margins"], theirs["margins"], rtol=0, atol=1e-4), name
        assert ours["radius"] == pytest.approx(theirs["radius"], rel=0.02)
