"""The contract of every registered attack, and exact answers on a linear model."""

import copy

import pytest
import torch

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.noise import Noise
from robustbench_cli.registry import Spec
from robustbench_cli.threat import Threat

GRADIENT = [name for name in ATTACKS.names() if name != "autoattack"]
NOISE = Noise(0, torch.arange(6))

every_attack = pytest.mark.parametrize("name", ATTACKS.names())
every_gradient_attack = pytest.mark.parametrize("name", GRADIENT)
every_norm = pytest.mark.parametrize("norm", ["Linf", "L2"])


@every_gradient_attack
@every_norm
def test_attack_leaves_everything_but_the_input_alone(name, norm, model, batch):
    x, y = batch
    state, x_before = copy.deepcopy(model.state_dict()), x.clone()
    model.eval()
    found = ATTACKS.build(Spec(name))(model, x, y, Threat(norm, 0.1), NOISE)
    assert found.x.shape == x.shape
    assert found.x.dtype == x.dtype
    assert not found.x.requires_grad
    assert Threat(norm, 0.1).inside(found.x, x).all()
    assert torch.equal(x, x_before)
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)
    assert all(p.grad is None for p in model.parameters())
    assert not model.training


@every_gradient_attack
@every_norm
def test_examples_are_independent(name, norm, model, batch):
    """A subset, in another order, gets the same answers as the whole batch."""
    x, y = batch
    model.eval()
    attack, threat = ATTACKS.build(Spec(name)), Threat(norm, 0.1)
    rows = torch.tensor([4, 1])
    alone = attack(model, x[rows], y[rows], threat, NOISE.only(rows))
    together = attack(model, x, y, threat, NOISE)
    torch.testing.assert_close(alone.x, together.x[rows])
    assert torch.equal(alone.step, together.step[rows])


class Halfspaces(torch.nn.Module):
    """Four classes by planes: the smallest successful radius has a closed form."""

    def __init__(self, weight, x, distance, norm):
        super().__init__()
        self.weight = torch.stack([weight, -weight, torch.zeros_like(weight), weight * 0])
        dual = (2 * weight).abs().sum() if norm == "Linf" else (2 * weight).norm()
        self.bias = torch.tensor(
            [float(distance * dual - 2 * (x.flatten(1)[0] @ weight)), 0, -99, -99],
            dtype=weight.dtype,
        )

    def forward(self, x):
        return x.flatten(1) @ self.weight.T.to(x) + self.bias.to(x)


@every_attack
@every_norm
@pytest.mark.parametrize(("share", "falls"), [(0.99, False), (1.02, True)])
def test_a_plane_falls_exactly_where_it_should(name, norm, share, falls):
    x = torch.full((3, 1, 8, 8), 0.5)
    y = torch.zeros(3, dtype=torch.long)
    plane = Halfspaces(torch.randn(64), x, distance=0.05, norm=norm)
    if falls and name == "fgsm-rs":
        share = 1.5  # one step from a random start does not reach the far corner
    threat = Threat(norm, 0.05 * share)
    found = ATTACKS.build(Spec(name))(plane, x, y, threat, Noise(0, torch.arange(3)))
    x_adv = threat.project(found.x, x)
    assert plane(x).argmax(1).eq(y).all()
    assert plane(x_adv).argmax(1).ne(y).all() == falls


@pytest.mark.parametrize("name", ["pgd", "bim", "mim", "cw"])
def test_any_iterate_counts_unless_the_last_is_asked_for(name):
    """Wrong only in a band that the attack walks into and out of."""

    def band(z):
        score = z.flatten(1).mean(1)
        inside = (score > 0.52) & (score < 0.56)
        return torch.stack([(~inside).double(), score], 1)

    x, y = torch.full((2, 1, 4, 4), 0.5).double(), torch.zeros(2, dtype=torch.long)
    params = {"steps": 10, "step": 0.3, "start": "clean"}
    noise = Noise(0, torch.arange(2))
    any_, last = (
        ATTACKS.build(Spec(name, {**params, "last_iterate": flag}))(
            band, x, y, Threat("Linf", 0.1), noise
        )
        for flag in (False, True)
    )
    assert band(any_.x).argmax(1).ne(y).all()
    assert (any_.step > 0).all()
    assert (any_.step < 10).all()
    assert band(last.x).argmax(1).eq(y).all()
    assert (last.step == -1).all()


def test_more_steps_and_restarts_only_break_more(model):
    x = torch.rand(64, 1, 8, 8).double()
    y = model.eval()(x).argmax(1)
    noise, threat = Noise(1, torch.arange(64)), Threat("Linf", 0.04)

    def broken(**params):
        return ATTACKS.build(Spec("pgd", params))(model, x, y, threat, noise).step >= 0

    few, many = broken(steps=3, step=0.4), broken(steps=20, step=0.4)
    once, often = broken(steps=3, step=0.4, restarts=1), broken(steps=3, step=0.4, restarts=4)
    assert (few <= many).all()
    assert (once <= often).all()
    assert few.any()
    assert not often.all()


def test_a_misclassified_restart_beats_a_higher_loss():
    """Cross-entropy 0.70 misclassifies with two classes, 1.05 does not with three."""

    def model(x):
        broken = torch.tensor([[0.0, 0.1, -9.0]]).double()
        robust = torch.tensor([[0.0, -0.01, -0.01]]).double()
        first = x.flatten(1)[:, :1] > 0.5
        return torch.where(first, broken, robust) + 0 * x.flatten(1).sum(1, keepdim=True)

    x, y = torch.full((40, 1, 2, 2), 0.5).double(), torch.zeros(40, dtype=torch.long)
    attack = ATTACKS.build(Spec("pgd", {"steps": 1, "step": 1, "restarts": 8}))
    found = attack(model, x, y, Threat("Linf", 0.1), Noise(0, torch.arange(40)))
    assert (model(found.x).argmax(1) != y).all()


def test_fgsm_is_the_formula(model, batch):
    x, y = batch
    model.eval()
    leaf = x.clone().requires_grad_()
    torch.nn.functional.cross_entropy(model(leaf), y, reduction="sum").backward()
    expected = (x + 0.1 * leaf.grad.sign()).clamp(0, 1)
    noise = Noise(0, torch.arange(6))
    found = ATTACKS.build(Spec("fgsm"))(model, x, y, Threat("Linf", 0.1), noise)
    standing = model(x).argmax(1) == y
    torch.testing.assert_close(found.x[standing], expected[standing])


def test_one_zero_gradient_does_not_freeze_the_momentum():
    """Dividing by a zero mean makes NaN, and sign(NaN) is 0: the example would never move."""
    calls = []

    def flat_at_first(z):
        calls.append(0)
        score = z.flatten(1).mean(1) * (0 if len(calls) == 1 else 1)
        return torch.stack([0.6 - score, score], 1)

    x, y = torch.full((1, 1, 4, 4), 0.25).double(), torch.zeros(1, dtype=torch.long)
    attack = ATTACKS.build(Spec("mim", {"steps": 5}))
    found = attack(flat_at_first, x, y, Threat("Linf", 0.1), Noise(0, torch.arange(1)))
    assert (found.x - x).abs().max() > 0.05


def test_mim_takes_steps_of_eps_over_steps():
    attack = ATTACKS.build(Spec("mim", {"steps": 8}))
    assert attack.step == 1 / 8
    assert ATTACKS.build(Spec("mim", {"steps": 8, "step": 0.5})).step == 0.5


def test_autoattack_leaves_torch_s_generators_alone(model, batch):
    x, y = batch
    net = model.float().eval().requires_grad_(False)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    found = ATTACKS.build(Spec("aa"))(
        net, x[:2].float(), y[:2], Threat("Linf", 0.02), Noise(0, torch.arange(2))
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert Threat("Linf", 0.02).inside(found.x, x[:2].float()).all()
