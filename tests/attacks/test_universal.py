"""Universal perturbations: one change for all, fitted elsewhere, by the formula, resumable."""

import pytest
import torch
from torch import nn

from robustbench_cli.attacks import ATTACKS, Stage
from robustbench_cli.attacks._universal import in_ball
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.eval_context import EvalContext
from robustbench_cli.evaluation.fitting import fit_rounds
from robustbench_cli.evaluation.search_model import exact_search_model
from robustbench_cli.evaluation.tensors import Tensors
from robustbench_cli.evaluation.verifier import Verifier, unchanged_model

KINDS = ["universal:passes=2", "universal-sgd:epochs=2,batch=8"]
every_kind = pytest.mark.parametrize("text", KINDS)
NORMS = {"Linf": Threat("Linf", 0.1), "L2": Threat("L2", 0.4)}
every_norm = pytest.mark.parametrize("threat", NORMS.values(), ids=NORMS)


@pytest.fixture
def halves(digits_model):
    """A net, images to attack, and others to fit to."""
    net, x, y = digits_model
    return net, (x[:12], y[:12]), Tensors(x[12:], y[12:])


def rounds(net, data, text, threat, known=None):
    attack = ATTACKS.build(Spec.parse(text))
    context = EvalContext(
        data=data,
        threat=threat,
        verifier=Verifier(net),
        search_model=exact_search_model(net),
        noise=Noise(0, torch.arange(len(data.y))),
    )
    with unchanged_model(net):
        ids = torch.arange(len(data.y))
        yield from fit_rounds(Stage("u", attack, 0), data, ids, context, known)


@every_norm
@every_kind
def test_all_images_get_the_same_change_inside_the_ball(text, threat, halves, run):
    net, _, others = halves
    # So far from the border of the box that nothing is cut off, even if one pixel takes it all.
    x = 0.45 + 0.1 * torch.rand(6, 1, 8, 8)
    found = run(net, x, net(x).argmax(1), text, threat, fit_on=others)
    change = found.x - x
    torch.testing.assert_close(change, change[:1].expand_as(change), rtol=0, atol=1e-6)
    assert 0 < threat.distance(found.x, x).max() <= threat.eps * (1 + 1e-5)


@every_kind
def test_the_images_under_attack_have_no_part_in_it(text, halves, run):
    net, (x, y), others = halves
    all_of_them = run(net, x, y, text, NORMS["Linf"], fit_on=others)
    few = run(net, x[3:5], y[3:5], text, NORMS["Linf"], fit_on=others, slots=1)
    assert torch.equal(few.x, all_of_them.x[3:5])
    assert torch.equal(few.broken, all_of_them.broken[3:5])
    with pytest.raises(UserError, match="fitted to training images"):
        run(net, x, y, text, NORMS["Linf"])


class Plane(nn.Module):
    """Two classes by a plane, images on either side of it."""

    def __init__(self):
        super().__init__()
        weight = torch.randn(16, 1, generator=torch.Generator().manual_seed(4))
        self.register_buffer("weight", weight / weight.norm())

    def forward(self, x):
        score = (x.flatten(1) - 0.5) @ self.weight
        return 5 * torch.cat([-score, score], 1)


@pytest.mark.parametrize("text", ["universal:delta=0", "universal-sgd:epochs=20"])
def test_it_fools_images_that_it_was_not_fitted_to(text, run):
    """All on one side of a plane and at most 0.25 from it: the change that crosses it is found."""
    net, draw = Plane(), torch.Generator().manual_seed(5)
    x = 0.5 + 0.1 * torch.randn(200, 1, 4, 4, generator=draw)
    score = (net(x)[:, 1] - net(x)[:, 0]) / 10
    near = (score < 0) & (score > -0.25)
    x = x[near][:40].clamp(0.1, 0.9)
    y = net(x).argmax(1)
    assert len(x) == 40
    assert not y.any()
    threat = Threat("L2", 0.3)
    random = run(net, x[:20], y[:20], "corners1", threat).broken.float().mean()
    assert random < 0.5
    found = run(net, x[:20], y[:20], text, threat, fit_on=Tensors(x[20:], y[20:]))
    assert found.broken.float().mean() >= 0.9


@every_kind
def test_an_interrupted_fit_ends_where_an_uninterrupted_one_does(text, halves):
    net, _, others = halves
    text = text.replace("passes=2", "passes=2,delta=0")
    first, *_, last = rounds(net, others, text, NORMS["Linf"])
    assert not first.last
    *_, resumed = rounds(net, others, text, NORMS["Linf"], known=first)
    assert last.last
    assert resumed.done == last.done == 2
    for name, values in last.fitted.state.items():
        assert torch.equal(resumed.fitted.state[name], values), name
    assert resumed.fitted.forwards == last.fitted.forwards
    assert resumed.fitted.backwards == last.fitted.backwards


def test_a_step_of_the_stochastic_form_is_the_formula(halves):
    """Along the sign of the summed gradient of min(cross-entropy, beta), over all images."""
    net, _, others = halves
    threat, beta = NORMS["Linf"], 0.5
    text = f"universal-sgd:epochs=1,batch=100,step=0.3,beta={beta}"
    (only,) = rounds(net, others, text, threat)
    leaf = torch.zeros_like(others.x[0]).requires_grad_()
    loss = nn.functional.cross_entropy(
        net((others.x + leaf).clamp(0, 1)), others.y, reduction="none"
    )
    (loss < beta).float().mul(loss).sum().backward()
    assert (loss < beta).any()
    clear = leaf.grad.abs() > 1e-5
    assert clear.float().mean() > 0.5
    expected = 0.3 * threat.eps * leaf.grad.sign()
    torch.testing.assert_close(only.fitted.state["v"][clear], expected[clear])


def test_deepfool_moves_it_onto_a_plane_and_then_it_is_done():
    """All images are on one side of a plane, at one distance: the first one's step fools all."""

    class Bright(nn.Module):
        def forward(self, x):
            score = x.flatten(1).mean(1) - 0.6
            return torch.stack([-score, score], 1)

    others = Tensors(torch.full((7, 1, 4, 4), 0.5), torch.zeros(7, dtype=torch.long))
    (only,) = rounds(Bright(), others, "universal:deepfool_steps=5", Threat("L2", 1.0))
    v = only.fitted.state["v"]
    assert only.last
    torch.testing.assert_close(v, torch.full_like(v, 0.102), rtol=0.01, atol=0)
    # Seven clean predictions; for the first image its check, DeepFool, and another check; one
    # check for each of the others; and the share that is fooled.
    assert only.fitted.backwards < 2 * 5
    assert only.fitted.forwards < 7 + 8 + 6 + 7 + 5
    (capped,) = rounds(Bright(), others, "universal:passes=1", Threat("L2", 0.2))
    torch.testing.assert_close(capped.fitted.state["v"].norm(), torch.tensor(0.2))
    assert float(capped.fitted.state["fooled"]) == 0


def test_a_target_is_a_class_of_the_stochastic_form(halves, run):
    net, (x, y), others = halves
    clean = net(x).argmax(1)
    text = "universal-sgd:target=3,epochs=20,batch=12"
    found = run(net, x, y, text, Threat("Linf", 0.25), fit_on=others)
    reached = net(found.x).argmax(1) == 3
    assert torch.equal(found.broken, reached & (y != 3))
    assert reached.sum() > (clean == 3).sum()
    assert "by its number" in ATTACKS.build(Spec.parse("universal-sgd:target=random")).no_target
    assert ATTACKS.build(Spec.parse("universal:target=3")).no_target


def test_the_ball_is_that_of_the_norm():
    v = torch.tensor([[[3.0, -0.1], [0.0, 4.0]]])
    assert in_ball(v, Threat("Linf", 0.5)).tolist() == [[[0.5, pytest.approx(-0.1)], [0.0, 0.5]]]
    torch.testing.assert_close(in_ball(v, Threat("L2", 1.0)), v / v.norm())
    assert torch.equal(in_ball(v, Threat("L2", 50.0)), v)
