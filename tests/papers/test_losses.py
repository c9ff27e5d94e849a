"""Each paper's outer loss and weight gradient, written out by hand in float64."""

import copy
import math
from contextlib import ExitStack

import pytest
import torch
import torch.nn.functional as F

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.defenses import DEFENSES, Recipe, parse
from robustbench_cli.defenses._step import Passes, Step
from robustbench_cli.defenses.he import CosineHead

NOISE = Noise(0, torch.arange(6))
THREAT = Threat("Linf", 0.1)


def step_of(model, batch, epoch=1000):
    x, y = batch
    return Step(model=model, x=x, y=y, threat=THREAT, noise=NOISE, epoch=epoch)


def loss_of(name, model, batch, x_adv, **params):
    objective = DEFENSES.build(Spec(name, params))
    passes = Passes(model, {"clean": batch[0], "adv": x_adv})
    return objective.loss(step_of(model, batch), passes).mean()


def gradients(model, loss):
    return torch.autograd.grad(loss, list(model.parameters()))


def softmax(z):
    return torch.exp(z) / torch.exp(z).sum(1, keepdim=True)


def mart_by_hand(model, x, y, x_adv, beta):
    total = 0
    p, q = softmax(model(x)), softmax(model(x_adv))
    for i, label in enumerate(y.tolist()):
        wrong = max(q[i, k] for k in range(4) if k != label)
        boosted = -torch.log(q[i, label]) - torch.log(1.0001 - wrong)
        divergence = sum(p[i, k] * torch.log(p[i, k] / q[i, k]) for k in range(4))
        total = total + boosted + beta * divergence * (1.0000001 - p[i, label])
    return total / len(y)


def trades_by_hand(model, x, y, x_adv, beta):
    p, q = softmax(model(x)), softmax(model(x_adv))
    natural = -torch.log(p[range(len(y)), y]).mean()
    return natural + beta * (p * torch.log(p / q)).sum(1).mean()


def alp_by_hand(model, x, y, x_adv, weight):
    a, b = model(x), model(x_adv)
    rows = range(len(y))
    mixed = -torch.log(softmax(a)[rows, y]).mean() - torch.log(softmax(b)[rows, y]).mean()
    return 0.5 * mixed + weight * ((a - b) ** 2).sum() / a.numel()


@pytest.mark.parametrize(
    ("name", "params", "by_hand"),
    [
        ("trades", {"beta": 6.0}, lambda m, x, y, a: trades_by_hand(m, x, y, a, 6.0)),
        ("mart", {"beta": 5.0}, lambda m, x, y, a: mart_by_hand(m, x, y, a, 5.0)),
        ("alp", {"weight": 0.5}, lambda m, x, y, a: alp_by_hand(m, x, y, a, 0.5)),
        ("pgd-at", {}, lambda m, x, y, a: F.cross_entropy(m(a), y)),
        ("fast-at", {}, lambda m, x, y, a: F.cross_entropy(m(a), y)),
        ("standard", {}, lambda m, x, y, a: F.cross_entropy(m(x), y)),
        (
            "fgsm-at",
            {},
            lambda m, x, y, a: 0.5 * F.cross_entropy(m(x), y) + 0.5 * F.cross_entropy(m(a), y),
        ),
    ],
)
def test_loss_and_every_weight_gradient(name, params, by_hand, model, batch):
    model.eval()
    x_adv = (batch[0] + 0.1 * torch.randn_like(batch[0])).clamp(0, 1)
    actual = loss_of(name, model, batch, x_adv, **params)
    expected = by_hand(model, *batch, x_adv)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(gradients(model, actual), gradients(model, expected))


def test_mart_s_two_class_value(model):
    """p(x') = (0.2, 0.8), y = 0: the boosted term is -ln 0.2 - ln 0.2001 = 3.2183."""

    def fixed(_):
        return torch.tensor([[math.log(0.2), math.log(0.8)]], dtype=torch.float64)

    x = torch.zeros(1, 1, 2, 2).double()
    passes = Passes(fixed, {"clean": x, "adv": x})
    step = step_of(model, (x, torch.tensor([0])))
    value = DEFENSES.build(Spec("mart", {"beta": 0})).loss(step, passes)
    assert value.item() == pytest.approx(3.2183, abs=1e-4)


def test_limits_where_methods_meet(model, batch):
    """beta = 0 is standard training; eps and lambda at zero change nothing."""
    model.eval()
    x_adv = (batch[0] + 0.1).clamp(0, 1)
    standard = gradients(model, loss_of("standard", model, batch, x_adv))
    same = gradients(model, loss_of("trades", model, batch, x_adv, beta=0))
    torch.testing.assert_close(same, standard)
    mixed = loss_of("alp", model, batch, x_adv, weight=0)
    torch.testing.assert_close(mixed, loss_of("fgsm-at", model, batch, x_adv))
    at_clean = gradients(model, loss_of("trades", model, batch, batch[0]))
    torch.testing.assert_close(at_clean, standard)


def test_mart_with_beta_zero_does_not_look_at_the_clean_image(model, batch):
    model.eval()
    adv = (batch[0] + 0.1).clamp(0, 1)
    clean = batch[0].clone().requires_grad_()
    loss = loss_of("mart", model, (clean, batch[1]), adv, beta=0)
    (g,) = torch.autograd.grad(loss, clean, allow_unused=True)
    assert g is None or not g.any()


def test_fast_at_s_clip_statistics():
    """Steps of 1.25 eps from a uniform start: 0.625 of the pixels end on the border, mean 0.859."""
    weight = torch.where(torch.rand(64) < 0.5, -1.0, 1.0).double()

    def linear(x):
        z = x.flatten(1) @ weight
        return torch.stack([z, -z], 1)

    x = torch.full((400, 1, 8, 8), 0.5).double()
    step = Step(
        model=linear,
        x=x,
        y=torch.ones(400, dtype=torch.long),
        threat=THREAT,
        noise=Noise(0, torch.arange(400)),
    )
    move = DEFENSES.build(Spec("fast-at")).perturb(step) - x
    along = move.flatten(1) * weight / 0.1
    assert (along > 1 - 1e-9).double().mean().item() == pytest.approx(0.625, abs=0.01)
    assert along.mean().item() == pytest.approx(0.8594, abs=0.005)


def trades_awp_he_by_hand(model, x, y, *, gamma, scale, margin, beta, steps, step):
    """One batch of TRADES with HE and AWP, with no abstraction at all."""
    model.head = CosineHead(model.head, scale)
    model.eval()
    clean = F.softmax(model(x), 1).detach()
    x_adv = (x + 0.001 * NOISE.fork("start").normal(x)).clamp(0, 1)
    for _ in range(steps):
        x_adv = x_adv.detach().requires_grad_()
        loss = F.kl_div(F.log_softmax(model(x_adv), 1), clean, reduction="sum")
        (grad,) = torch.autograd.grad(loss, x_adv)
        x_adv = x_adv.detach() + step * 0.1 * grad.sign()
        x_adv = torch.min(torch.max(x_adv, x - 0.1), x + 0.1).clamp(0, 1)
    model.train()

    def objective(net):
        logits, logits_adv = net(x), net(x_adv)
        shifted = logits - scale * margin * F.one_hot(y, logits.shape[1])
        kl = F.kl_div(F.log_softmax(logits_adv, 1), F.softmax(logits, 1), reduction="batchmean")
        return F.cross_entropy(shifted, y) + beta * kl

    proxy = copy.deepcopy(model)
    proxy.zero_grad()
    objective(proxy).backward()
    moved = {}
    with torch.no_grad():
        pairs = zip(model.named_parameters(), proxy.parameters(), strict=True)
        for (name, p), q in pairs:
            if p.ndim > 1:
                moved[name] = gamma * p.norm() / q.grad.norm() * q.grad
                p += moved[name]
    loss = objective(model)
    loss.backward()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name in moved:
                p -= moved[name]
    return loss.detach(), moved


def test_trades_awp_he_is_what_the_papers_say(model, batch):
    """Loss, every gradient, every weight and the BatchNorm buffers."""
    reference, composed = copy.deepcopy(model), copy.deepcopy(model)
    recipe = Recipe.build(
        parse("trades:beta=6,steps=3,step=1/4+awp:gamma=0.01,warmup=0+he:scale=15,margin=0.2")
    )
    composed = recipe.prepare(composed).train()
    expected, moved = trades_awp_he_by_hand(
        reference, *batch, gamma=0.01, scale=15, margin=0.2, beta=6, steps=3, step=0.25
    )
    with ExitStack() as release:
        trained = recipe.backward(step_of(composed, batch), release)
        # While the weights are moved, each has gone gamma times its norm.
        for name, p in composed.named_parameters():
            if name in moved:
                gone = (p - dict(reference.named_parameters())[name]).norm()
                assert gone.item() == pytest.approx(moved[name].norm().item(), rel=1e-6)
    torch.testing.assert_close(trained.loss, expected)
    for p, q in zip(composed.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(p, q)
        torch.testing.assert_close(p.grad, q.grad)
    theirs = dict(reference.named_buffers())
    for key, buffer in composed.named_buffers():
        torch.testing.assert_close(buffer, theirs[key])
