"""MD, MDMT and PMA: the authors' loops written out, and margins with imbalanced gradients."""

import math

import pytest
import torch
from torch import nn

from robustbench_cli.attacks import Observation, Output, Task
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.tensors import Tensors

IDS = torch.arange(5)


@pytest.fixture
def net(model):
    return model.eval().requires_grad_(False)


def task_of(net, round_, threat=None):
    torch.manual_seed(7)
    x = torch.rand(5, 1, 8, 8).double()
    clean = net(x)
    return Task(
        x=x, y=clean.argmax(1), clean=clean, threat=threat or Threat("Linf", 0.1),
        noise=Noise(0, IDS).fork(f"restart {round_}"), restart_or_target=round_,
        data=Tensors(x, clean.argmax(1)),
    )  # fmt: skip


def looks(attack, net, task):
    """The images that the attack shows the model, as long as nothing succeeds."""
    state, index, shown = attack.begin(task), torch.zeros_like(task.y), []
    while True:
        leaf = state["x"].clone().requires_grad_()
        logits = net(leaf)
        loss = attack.loss(Output(logits, None), state, task, index)
        (grad,) = torch.autograd.grad(loss.sum(), leaf)
        shown.append(leaf.detach())
        if attack.over(state, index).all():
            return torch.stack(shown)
        none = logits.new_empty(len(task.y), 0)
        seen = Observation(logits.detach(), loss.detach(), grad, none, none, index)
        state, index = attack.move(state, seen, task), index + 1


def projected(z, x, eps):
    return torch.minimum(torch.maximum(z, x - eps), x + eps).clamp(0, 1)


def written_out(net, x, task, sizes, change, scores, rival):
    """The published loop: one term until ``change``, the margin after it."""
    shown, eps, round_ = [x], task.threat.eps, task.restart_or_target % 2
    for i, size in enumerate(sizes):
        leaf = x.clone().requires_grad_()
        z = scores(net(leaf))
        own = z.gather(1, task.y[:, None])[:, 0]
        other = rival(z)
        if i < 1:
            loss = own
        elif i < change:
            loss = other if round_ else -own
        else:
            loss = other - own
        (grad,) = torch.autograd.grad(loss.sum(), leaf)
        x = projected(leaf.detach() + size * eps * grad.sign(), task.x, eps)
        shown.append(x)
    return torch.stack(shown)


def largest_wrong(task):
    own = nn.functional.one_hot(task.y, 4).bool()
    return lambda z: z.masked_fill(own, -1e9).amax(1)


@pytest.mark.parametrize("round_", [0, 1])
@pytest.mark.parametrize("steps", [5, 10])
def test_md_is_the_loop_written_out(round_, steps, net, build):
    attack, task = build(f"md{steps}:step=0.3"), task_of(net, round_)
    start = attack.begin(task)["x"]
    change = steps / 2
    sizes = [2.0 if i < change else 0.3 for i in range(steps)]
    expected = written_out(net, start, task, sizes, change, lambda z: z, largest_wrong(task))
    torch.testing.assert_close(looks(attack, net, task), expected, rtol=0, atol=1e-7)


def test_the_published_settings(build):
    md = build("md")
    index = torch.arange(40)
    # 16/255 and 2/255 at eps 8/255, 40 steps of which 20 climb a single logit.
    assert md.step_sizes(index).tolist() == [2.0] * 20 + [0.25] * 20
    assert md.over({}, torch.tensor([39, 40])).tolist() == [False, True]
    assert md.restarts_or_targets(10) == 2
    assert build("mdmt").restarts_or_targets(10) == 18
    assert build("pma").restarts_or_targets(10) == 2
    assert not any(build(name).nested for name in ("md", "mdmt", "pma"))


@pytest.mark.parametrize("number", range(6))
def test_mdmt_takes_two_rounds_towards_each_wrong_class(number, net, build):
    attack, task = build("mdmt4"), task_of(net, number)
    target = task.clean.argsort(1, descending=True)[:, 1 + number // 2]
    start = attack.begin(task)["x"]
    sizes = [2.0, 2.0, 0.25, 0.25]
    expected = written_out(
        net, start, task, sizes, 2, lambda z: z, lambda z: z.gather(1, target[:, None])[:, 0]
    )
    torch.testing.assert_close(looks(attack, net, task), expected, rtol=0, atol=1e-7)


def cosine(i, steps):
    """The step size of the authors' code, as a fraction of eps."""
    change = steps / 2
    late = i > change
    return 1 + math.cos((i - (change + 1 if late else 1)) / (steps - change) * math.pi)


@pytest.mark.parametrize("round_", [0, 1])
@pytest.mark.parametrize("steps", [7, 12])
def test_pma_is_the_loop_on_probabilities_written_out(round_, steps, net, build):
    attack, task = build(f"pma{steps}"), task_of(net, round_)
    start = attack.begin(task)["x"]
    sizes = [cosine(i, steps) for i in range(steps)]
    assert max(sizes) == 2
    expected = written_out(
        net, start, task, sizes, steps / 2, lambda z: z.softmax(1), largest_wrong(task)
    )
    torch.testing.assert_close(looks(attack, net, task), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("gap", [0.5, 3.0, 12.0])
@pytest.mark.parametrize("name", ["true_up", "true_down", "rival_up", "margin"])
def test_the_terms_of_pma_rise_in_the_direction_of_the_probabilities(gap, name, net, build):
    task = task_of(net, 0)
    torch.manual_seed(1)
    z = torch.randn(5, 4).double()
    z.scatter_(1, task.y[:, None], z.amax(1, keepdim=True) + gap)

    def terms(leaf):
        p = leaf.softmax(1)
        own, rival = p.gather(1, task.y[:, None])[:, 0], largest_wrong(task)(p)
        return {"true_up": own, "true_down": -own, "rival_up": rival, "margin": rival - own}[name]

    leaf = z.clone().requires_grad_()
    (expected,) = torch.autograd.grad(terms(leaf).sum(), leaf)
    (found,) = torch.autograd.grad(getattr(build("pma").terms(leaf, {}, task), name).sum(), leaf)
    unit = [g / g.norm(dim=1, keepdim=True) for g in (expected, found)]
    torch.testing.assert_close(*unit, rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4, 1e8])
@pytest.mark.parametrize("sign", [-1, 1])
def test_pma_has_a_gradient_wherever_logits_have_one(scale, sign, net, build):
    """In float32 a softmax saturates at a gap of 100 logits; 1e4 and 1e8 are far beyond it."""
    task = task_of(net, 0)
    torch.manual_seed(1)
    z = torch.randn(5, 4)
    z.scatter_(1, task.y[:, None], z.amax(1, keepdim=True) + 1)
    leaf = (sign * scale * z).requires_grad_()
    terms = build("pma").terms(leaf, {}, task)
    for term in terms if sign > 0 else terms[:2]:  # what is past the boundary may be flat
        (grad,) = torch.autograd.grad(term.sum(), leaf, retain_graph=True)
        assert grad.isfinite().all()
        assert (grad.abs().amax(1) > 0.1).all()


def test_scaled_logits_fool_pgd_and_not_pma(digits_model, run):
    net, x, y = digits_model

    class Scaled(nn.Module):
        def forward(self, x):
            return 1e4 * net(x)

    threat = Threat("Linf", 0.15)
    plain, scaled = (run(m, x, y, "pma20", threat) for m in (net, Scaled()))
    pgd = run(Scaled(), x, y, "pgd20", threat)
    assert plain.broken.sum() > pgd.broken.sum() + 4
    assert scaled.broken.sum() > pgd.broken.sum() + 4


class Imbalanced(nn.Module):
    """The true logit rises steeply in steps that lead nowhere, the rival slowly and for good.

    Along the mean of the pixels, u, the true logit is a sawtooth of height 0.2 that rises with
    slope 40; the rival has slope 6.  The margin falls with u almost everywhere, yet it is
    positive at u + 0.1, where the rival has gained 0.6.
    """

    def forward(self, x):
        u = x.flatten(1).mean(1) - 0.5
        steep = 40 * u
        tooth = 0.2 * (steep / 0.2 - (steep / 0.2).detach().floor())
        true, rival = 0.3 + tooth, 6 * u
        return torch.stack([true, rival, rival * 0 - 5, rival * 0 - 6], 1)


@pytest.mark.parametrize("name", ["md", "mdmt", "pma"])
def test_decomposition_breaks_margins_with_imbalanced_gradients(name, run):
    x, y = torch.full((8, 1, 4, 4), 0.5), torch.zeros(8, dtype=torch.long)
    threat = Threat("Linf", 0.1)
    for weak in ("pgd40", "pgd40:climbs=margin", "pgd40:climbs=dlr", "cw40", "apgd-ce"):
        assert not run(Imbalanced(), x, y, weak, threat).broken.any(), weak
    found = run(Imbalanced(), x, y, name, threat)
    assert found.broken.all()
    assert Imbalanced()(found.x).argmax(1).eq(1).all()
