"""Gradient steps in the forward pass are differentiated through, and leave nothing behind."""

import gc

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robustbench_cli.core.inner_autograd import runs_counted
from robustbench_cli.views._gradients import margin_gradient
from robustbench_cli.views._interception import Intercepted
from robustbench_cli.views._rules import STRAIGHT_THROUGH
from robustbench_cli.views.straight_through import StraightThrough
from robustbench_cli.views.unrolled_steps import UnrolledSteps


class Purified(nn.Module):
    """Two gradient steps on the image, towards the class it is taken for, before it is
    classified; detached."""

    def __init__(self, net, size=0.05):
        super().__init__()
        self.net, self.size = net, size

    def step(self, z):
        z = z.detach().requires_grad_()
        logits = self.net(z)
        entropy = -(logits.softmax(1) * logits.log_softmax(1)).sum()
        (grad,) = torch.autograd.grad(entropy, z)
        return z - self.size * grad

    def forward(self, x):
        z = x
        with torch.enable_grad():
            for _ in range(2):
                z = self.step(z)
        return self.net(z.detach()) + 0 * x.sum()


class ByBackward(Purified):
    """The same by ``backward`` and ``.grad``."""

    def step(self, z):
        z = z.detach().clone().requires_grad_()
        logits = self.net(z)
        (-(logits.softmax(1) * logits.log_softmax(1)).sum()).backward()
        return z.detach() - self.size * z.grad


class Open(Purified):
    """The same, with a gradient of its own."""

    def forward(self, x):
        z = x
        for _ in range(2):
            logits = self.net(z)
            entropy = -(logits.softmax(1) * logits.log_softmax(1)).sum()
            (grad,) = torch.autograd.grad(entropy, z, create_graph=True)
            z = z - self.size * grad
        return self.net(z)


@pytest.mark.parametrize("kind", [Purified, ByBackward])
def test_the_gradient_is_that_of_all_steps(kind, digits_model, subject):
    net, x, y = digits_model
    model = kind(net)
    made = subject(model, x, y)
    assert made.gradients.unusable == 1
    exact = Intercepted(model, STRAIGHT_THROUGH, inner_graphs=True)
    found = margin_gradient(exact, x, y)
    torch.testing.assert_close(found, margin_gradient(Open(net), x, y), rtol=1e-3, atol=1e-4)
    view = UnrolledSteps().build(made)
    skipped = StraightThrough().build(made)
    assert made.gradients_of(view).agreement > made.gradients_of(skipped).agreement + 0.1
    assert torch.equal(view(x), model(x))


def test_no_graph_is_held_for_ever(digits_model, subject):
    net, x, y = digits_model
    view = UnrolledSteps().build(subject(ByBackward(net), x, y))
    counts = []
    for _ in range(3):
        margin_gradient(view, x, y)
        gc.collect()
        counts.append(sum(type(each) is torch.Tensor for each in gc.get_objects()))
    assert counts[2] <= counts[1]


class Optimised(nn.Module):
    """A correction of the image by an optimiser, which changes it in place."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        with torch.enable_grad():
            change = torch.zeros_like(x, requires_grad=True)
            optimizer = torch.optim.Adam([change], lr=0.01)
            for _ in range(2):
                optimizer.zero_grad()
                logits = self.net(x.detach() + change)
                F.cross_entropy(logits, logits.argmax(1)).backward()
                optimizer.step()
        return self.net((x + change).detach()) + 0 * x.sum()


def test_steps_of_an_optimiser_are_skipped(digits_model, subject):
    """What it changes in place cannot be differentiated through; the image still can."""
    net, x, y = digits_model
    model = Optimised(net)
    made = subject(model, x, y)
    view = StraightThrough().build(made)
    assert made.gradients_of(view).agreement > 0.6
    torch.testing.assert_close(view(x), model(x))


def test_it_is_for_models_that_run_autograd(digits_model, subject):
    net, x, y = digits_model

    class Detached(nn.Module):
        def forward(self, z):
            return net(z.detach()) + 0 * z.sum()

    assert UnrolledSteps().build(subject(Detached(), x, y)) is None
    assert UnrolledSteps(most=1).build(subject(Purified(net), x, y)) is None
    with runs_counted() as runs:
        Purified(net)(x)
    assert len(runs) == 2
