"""Each warning comes for a model that deserves it, and none for a plain one."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import grad as grad_of

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.audit import checks
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.stages import AttackVerdicts


@pytest.fixture
def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 5))


@pytest.fixture
def images(net):
    x = torch.rand(20, 1, 4, 4)
    return x, net(x).argmax(1)


class Around(nn.Module):
    """Something between the images and the logits."""

    def __init__(self, net, forward):
        super().__init__()
        self.net, self._forward = net, forward

    def forward(self, x):
        return self._forward(self.net, x)


def cleaned(net, x):
    """Images are moved uphill before they are classified."""
    leaf = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        top = net(leaf).logsumexp(1).sum()
        (grad,) = torch.autograd.grad(top, leaf)
    return net(x + 0.01 * grad)


def cleaned_by_backward(net, x):
    leaf = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        net(leaf).logsumexp(1).sum().backward()
    return net(x + 0.01 * leaf.grad)


def cleaned_by_another_name(net, x):
    """As a model file may have imported it, long before anyone looks."""
    leaf = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        (grad,) = grad_of(net(leaf).logsumexp(1).sum(), leaf)
    return net(x + 0.01 * grad)


def cleaned_functionally(net, x):
    grad = torch.func.grad(lambda z: net(z).logsumexp(1).sum())(x.detach())
    return net(x + 0.01 * grad)


DESERVED = {
    "randomised": lambda net, x: net(x + 0.05 * torch.randn_like(x)),
    "dynamic defense": cleaned,
    "computes gradients": cleaned_by_backward,
    "in its forward pass": cleaned_by_another_name,
    "an adaptive attack": cleaned_functionally,
    "probabilities": lambda net, x: net(x).softmax(1),
    "zero gradient": lambda net, x: net((x * 4).round() / 4) + 0 * x.sum(),
}


@pytest.mark.parametrize("named", DESERVED)
def test_a_model_that_misleads_is_named_and_by_nothing_else(named, net, images):
    x, y = images
    model = Around(net, DESERVED[named])
    y = net((x * 4).round() / 4).argmax(1) if named == "zero gradient" else y
    notes = checks.before(model, x, y)
    assert len(notes) == 1
    assert named in notes[0]


def test_a_plain_net_gets_no_warning(net, images, digits_model):
    assert checks.before(net, *images) == []
    assert checks.before(*digits_model) == []


def test_two_classes_and_nothing_right_are_no_reason_to_fail(net, images):
    x, y = images
    two = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    assert checks.before(two, x, y % 2) == []
    assert checks.before(net, x, (y + 1) % 5) == []


def test_only_images_that_will_be_attacked_count_for_the_gradient(net, images):
    x, _ = images
    flat = Around(
        net,
        lambda net, x: (
            net(torch.where(x.mean((1, 2, 3)) > 0.5, 0.0, 1.0)[:, None, None, None] * x)
            + 0 * x.sum()
        ),
    )
    dead = x.mean((1, 2, 3)) > 0.5
    right = flat(x).argmax(1)
    (note,) = checks.before(flat, x, right)
    assert note.startswith(f"{int(dead.sum())} of 20 images have a zero gradient")
    assert checks.before(flat, x, torch.where(dead, (right + 1) % 5, right)) == []


def test_looking_changes_nothing(net, images):
    net.train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    checks.before(net, *images)
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)
    assert net.training
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert torch.autograd._engine_run_backward.__module__.startswith("torch")


def test_tiny_differences_between_passes_are_no_randomness(net, images):
    def jitter(scale):
        return Around(net, lambda net, x: net(x) * (1 + scale * torch.rand(1)))

    x, _ = images
    # A common factor does not count: only the direction of the logits does.
    assert not checks.randomised(jitter(0.1), x)
    noisy = Around(net, lambda net, x: net(x) + 1e-7 * torch.randn(len(x), 5))
    assert not checks.randomised(noisy, x)
    noisy = Around(net, lambda net, x: net(x) + 1e-2 * torch.randn(len(x), 5))
    assert checks.randomised(noisy, x)


@pytest.mark.parametrize(("late", "warns"), [(0, False), (2, False), (3, True), (200, True)])
def test_a_black_box_attack_that_beats_gradients_is_a_warning(late, warns):
    """More than 0.2 % of the examples, as in the official notes."""
    stages = ATTACKS.build(Spec("autoattack")).stages(Threat("Linf", 0.1), 10)
    blind = [i for i, stage in enumerate(stages) if stage.member == "square"]
    n, column = 1000, AttackVerdicts.empty(1000)
    column.arrays["by"][:300] = 0
    column.arrays["by"][300 : 300 + late] = blind[0]
    notes = checks.after(stages, column, n)
    assert bool(notes) == warns
    if warns:
        assert f"broke {late} of 1000" in notes[0]


def test_a_flat_start_is_a_warning_for_one_example():
    stages = ATTACKS.build(Spec("apgd-dlr")).stages(Threat("Linf", 0.1), 10)
    column = AttackVerdicts.empty(10)
    column.arrays["stages"][:7] = 1
    assert checks.after(stages, column, 10) == []
    column.arrays["flat"][4] = True
    (note,) = checks.after(stages, column, 10)
    assert note.startswith("1 of 7 examples have a zero gradient of the logit ratio")


@pytest.mark.parametrize("name", ["square", "pgd"])
def test_an_attack_on_its_own_beats_nobody(name):
    stages = ATTACKS.build(Spec(name)).stages(Threat("Linf", 0.1), 10)
    column = AttackVerdicts.empty(10)
    column.arrays["by"][:] = 0
    assert checks.after(stages, column, 10) == []
    assert np.all(column.broken)
