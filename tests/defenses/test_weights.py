"""AMP, SAM and RWP: the perturbation, the gradient at the moved weights, restored weights."""

import copy
from contextlib import ExitStack
from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.threat import Threat
from robustbench_cli.defenses import Objective, Recipe, parse
from robustbench_cli.defenses._step import Step
from robustbench_cli.defenses._weights import move_weights
from robustbench_cli.defenses.amp import AMP
from robustbench_cli.defenses.rwp import RWP
from robustbench_cli.defenses.sam import SAM

ALL = ["amp", "amp:variant=code", "amp:climbs=3", "sam", "rwp"]


def step_of(net, batch):
    return Step(
        model=net,
        x=batch[0],
        y=batch[1],
        threat=Threat("Linf", 0.1),
        noise=Noise(0, torch.arange(len(batch[0]))),
        epoch=100,
    )


def trained(text, model, batch, lr=0.1, weight_decay=0.0):
    """Return a copy of the model after one step."""
    net = copy.deepcopy(model).train()
    optimizer = torch.optim.SGD(net.parameters(), lr, weight_decay=weight_decay)
    with ExitStack() as release:
        Recipe.build(parse(text)).backward(step_of(net, batch), release)
        optimizer.step()
    return net


class Numbers(nn.Module):
    """A model that consists of weights alone."""

    def __init__(self, *values):
        super().__init__()
        self.values = nn.ParameterList([torch.tensor(v, dtype=torch.float64) for v in values])


@dataclass(frozen=True)
class Quadratic(Objective):
    """The loss: half the curvature times the squared norm of all weights."""

    curvature: float = 1.0

    def loss(self, step, logits):
        half = sum(p.square().sum() for p in step.model.parameters()) / 2
        return (self.curvature * half).expand(len(step.x))


def moves(modifier, *values):
    """Return the perturbation that a modifier makes of these weights, on the quadratic."""
    net, batch = Numbers(*values), (torch.zeros(2, 1, 2, 2), torch.zeros(2, dtype=torch.long))
    step = step_of(net, batch)
    params = modifier.perturbed_weights(net)
    return modifier.perturbation(step, params, lambda: Quadratic().loss(step, None).mean())


@pytest.mark.parametrize(
    ("modifier", "expected"),
    [
        (AMP(radius=0.5, rate=1), [(0.115385, 0.153846), (0.461538,)]),
        (AMP(radius=0.5, rate=1, variant="code"), [(0.3, 0.4), (0.5,)]),
        (AMP(radius=9, rate=0.01), [(0.03, 0.04), (0.12,)]),
        (AMP(radius=9, rate=0.01, climbs=2), [(0.0603, 0.0804), (0.2412,)]),
        (SAM(rho=1.3), [(0.3, 0.4), (1.2,)]),
    ],
)
def test_perturbations_by_hand(modifier, expected):
    """At (3, 4) and (12), whose length is 13, the gradient is the weight itself."""
    for ours, theirs in zip(moves(modifier, (3.0, 4.0), (12.0,)), expected, strict=True):
        assert ours.tolist() == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize(
    ("radius", "decay", "expected"), [(9.0, 0.0, 1.31), (0.1, 0.0, 1.37), (0.1, 0.5, 1.27)]
)
def test_the_optimiser_steps_from_the_weights_it_left(radius, decay, expected):
    """theta = 2 - 0.1 (3 (2 + move) + decay 2) with move 0.05 x 6, clipped at 0.1 or not."""
    net = Numbers(2.0)
    recipe = Recipe(Quadratic(3.0), (AMP(radius=radius, rate=0.05),))
    optimizer = torch.optim.SGD(net.parameters(), 0.1, weight_decay=decay)
    batch = torch.zeros(2, 1, 2, 2), torch.zeros(2, dtype=torch.long)
    with ExitStack() as release:
        recipe.backward(step_of(net, batch), release)
        optimizer.step()
    assert net.values[0].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("text", ALL)
def test_weights_that_make_no_step_come_back_bit_for_bit(text, model, batch):
    model.float()
    batch = batch[0].float(), batch[1]
    for decay in (0.0, 0.1):
        net = trained(f"standard+{text}", model, batch, lr=0.0, weight_decay=decay)
        for p, q in zip(net.parameters(), model.parameters(), strict=True):
            assert torch.equal(p, q)


def test_a_step_made_on_moved_weights_is_kept_and_an_error_leaves_nothing():
    net = Numbers((1.0, 2.0))
    with torch.no_grad(), move_weights(list(net.values), [torch.tensor([0.5, 0.25])]):
        assert net.values[0].tolist() == [1.5, 2.25]
        net.values[0].sub_(0.125)
    assert net.values[0].tolist() == [0.875, 1.875]
    with pytest.raises(ZeroDivisionError), move_weights(list(net.values), [torch.ones(2)]):
        raise ZeroDivisionError
    assert net.values[0].tolist() == [0.875, 1.875]


@pytest.mark.parametrize("text", ["amp:radius=0", "sam:rho=0", "rwp:radius=0"])
def test_a_radius_of_zero_is_the_base_bit_for_bit(text, model, batch):
    base, net = trained("trades", model, batch), trained(f"trades+{text}", model, batch)
    torch.testing.assert_close(net.state_dict(), base.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("modifier", "size"),
    [(AMP(radius=0.2, rate=1e6), 0.2), (SAM(rho=0.3), 0.3), (RWP(radius=0.4), 0.4)],
)
def test_all_weights_as_one_vector_go_as_far_as_the_radius(modifier, size, model, batch):
    home = [p.detach().clone() for p in model.parameters()]
    step = step_of(model.train(), batch)
    with modifier.weights(step, lambda: F.cross_entropy(model(step.x), step.y)):
        gone = [p.detach() - h for p, h in zip(model.parameters(), home, strict=True)]
    assert torch.cat([g.flatten() for g in gone]).norm().item() == pytest.approx(size, rel=1e-6)
    assert all(g.any() for g in gone)  # BatchNorm's weights and biases, too


def by_hand(net, x, y, kind, size):
    """Return the gradient after a move of ``size`` along the gradient, in plain torch."""
    twin = copy.deepcopy(net).train()
    F.cross_entropy(twin(x), y).backward()
    grads = [p.grad for p in twin.parameters()]
    whole = torch.cat([g.flatten() for g in grads]).norm()
    for p, g in zip(twin.parameters(), grads, strict=True):
        norm = g.norm() if kind == "code" else whole
        p.data += g if kind != "sam" and norm < size else size * g / norm
    twin.zero_grad()
    loss = F.cross_entropy(twin(x), y)
    return loss, torch.autograd.grad(loss, list(twin.parameters()))


@pytest.mark.parametrize(
    ("text", "kind", "size"),
    [
        ("amp:radius=0.3", "paper", 0.3),
        ("amp:radius=0.3,variant=code", "code", 0.3),
        ("amp:radius=1e3", "paper", 1e3),
        ("sam:rho=0.1", "sam", 0.1),
    ],
)
def test_loss_and_every_weight_gradient(text, kind, size, model, batch):
    loss, expected = by_hand(model, *batch, kind, size)
    net = copy.deepcopy(model).train()
    with ExitStack() as release:
        ours = Recipe.build(parse(f"standard+{text}")).backward(step_of(net, batch), release)
    torch.testing.assert_close(ours.loss, loss.detach())
    torch.testing.assert_close([p.grad for p in net.parameters()], list(expected))


@pytest.mark.parametrize(
    ("text", "passes"),
    [("amp", 1), ("amp:variant=code", 2), ("amp:variant=code,climbs=3", 4), ("sam", 1), ("rwp", 1)],
)
def test_passes_that_update_batchnorm(text, passes, model, batch):
    net = trained(f"standard+{text}", model, batch)
    before, after = dict(model.named_buffers()), dict(net.named_buffers())
    seen = after["body.bn1.num_batches_tracked"] - before["body.bn1.num_batches_tracked"]
    assert int(seen) == passes


def test_under_sam_batchnorm_s_statistics_are_those_of_the_unmoved_weights(model, batch):
    def mean(text):
        return dict(trained(text, model, batch).named_buffers())["body.bn3.running_mean"]

    assert torch.equal(mean("standard+sam:rho=1"), mean("standard"))
    assert not torch.equal(mean("standard+amp"), mean("standard"))


def test_the_random_direction_is_keyed_by_seed_epoch_batch_and_update(model, batch):
    step = step_of(model, batch)
    params = RWP().perturbed_weights(model)

    def drawn(step):
        return torch.cat([m.flatten() for m in RWP().perturbation(step, params, None)])

    first = drawn(step)
    assert torch.equal(drawn(step), first)
    ids = torch.arange(6)
    assert torch.equal(drawn(replace(step, noise=Noise(0, ids[3:]))), first)  # not to examples
    others = [
        replace(step, noise=Noise(1, ids)),
        replace(step, noise=Noise(0, ids, "epoch 1")),
        replace(step, batch=1),
        replace(step, update_index=1),
    ]
    for other in others:
        cosine = F.cosine_similarity(drawn(other), first, dim=0)
        assert cosine.abs() < 0.2


@pytest.mark.parametrize("pair", ["awp+amp", "sam+awp", "amp+rwp"])
def test_two_weight_perturbations_are_refused(pair):
    with pytest.raises(UserError, match="both move the weights"):
        Recipe.build(parse(f"pgd-at+{pair}")).check(100)
