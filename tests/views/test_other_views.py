"""Views that average, that hold a batch fixed, and that learn: what they answer, and when."""

import copy

import pytest
import torch
from torch import nn

from robustbench_cli.core.registry import Spec
from robustbench_cli.core.same_draws import same_draws
from robustbench_cli.core.threat import Threat
from robustbench_cli.views import VIEWS
from robustbench_cli.views._gradients import margin_gradient
from robustbench_cli.views.averaged_draws import AveragedDraws
from robustbench_cli.views.averaged_straight_through import AveragedStraightThrough
from robustbench_cli.views.fixed_batch import FixedBatch
from robustbench_cli.views.smoothed_gradient import SmoothedGradient
from robustbench_cli.views.student import Student


class Before(nn.Module):
    def __init__(self, net, change):
        super().__init__()
        self.net, self.change = net, change

    def forward(self, x):
        return self.net(self.change(x))


def shattered(x):
    return x + 0.02 * torch.sin(300 * x)


@pytest.mark.parametrize("name", VIEWS.names())
def test_a_sound_model_gives_no_reason_for_a_view(name, digits_model, subject):
    net, x, y = digits_model
    state, before = torch.get_rng_state(), copy.deepcopy(net.state_dict())
    assert VIEWS.build(Spec(name)).build(subject(net, x, y)) is None
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)


def test_a_smoothed_gradient_is_the_mean_over_the_points(digits_model, subject):
    net, x, y = digits_model
    x = x.clamp(0.1, 0.9)
    model = Before(net, shattered)
    view = SmoothedGradient(pairs=3, reach=0.5).build(subject(model, x, y))
    assert torch.equal(view(x), model(x))
    # The points are those at which the average looks; all of them inside half of the radius.
    offsets = view.surrogate.offsets
    assert len(offsets) == 6
    assert 0.03 < offsets.abs().max() <= 0.05
    torch.testing.assert_close(offsets[:3], -offsets[3:])
    leaf = x.clone().requires_grad_()
    expected = torch.autograd.grad(sum(model(leaf + each).sum() for each in offsets) / 6, leaf)
    found = torch.autograd.grad(view(leaf).sum(), leaf)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_smoothing_gives_a_gradient_to_black_pixels(digits_model, subject):
    """The square root has an infinite one there, and its square makes NaN of it."""
    net, x, y = digits_model
    made = subject(Before(net, lambda z: z.sqrt() ** 2), x, y)
    assert made.gradients.unusable > 0.9
    view = SmoothedGradient().build(made)
    quality = made.gradients_of(view)
    assert quality.unusable == 0
    assert quality.agreement > 0.9
    grad = margin_gradient(view, x, y)
    assert grad.isfinite().all()
    assert (grad[x == 0] != 0).float().mean() > 0.9


def test_smoothing_needs_a_gradient(digits_model, subject):
    net, x, y = digits_model
    made = subject(Before(net, lambda z: z.detach() + 0 * z), x, y)
    assert SmoothedGradient().build(made) is None


def test_draws_are_averaged(digits_model, subject):
    net, x, y = digits_model
    noisy = Before(net, lambda z: z + 0.3 * torch.randn_like(z))
    view = AveragedDraws(draws=5).build(subject(noisy, x, y, random=True))
    assert AveragedDraws(draws=5).passes == 5
    with same_draws():
        found = view(x)
    with same_draws():
        expected = sum(noisy(x) for _ in range(5)) / 5
    torch.testing.assert_close(found, expected)
    assert AveragedDraws().build(subject(noisy, x, y, random=False)) is None


def test_draws_of_a_model_that_stops_the_gradient_are_averaged_over_a_view(digits_model, subject):
    net, x, y = digits_model

    def rounded(z):
        return (15 * z).round().detach() / 15 + 0 * z

    noisy = Before(net, lambda z: rounded(z + 0.3 * torch.randn_like(z)))
    made = subject(noisy, x, y, random=True)
    view = AveragedStraightThrough(draws=4).build(made)
    own, found = (made.gradients_of(each).agreement for each in (AveragedDraws().build(made), view))
    assert own == 0
    assert found > 0.4
    grads = margin_gradient(view, x, y).flatten(1)
    without = Before(net, lambda z: z + 0.3 * torch.randn_like(z))
    expected = margin_gradient(
        AveragedDraws(draws=4).build(subject(without, x, y, random=True)), x, y
    )
    assert torch.cosine_similarity(grads, expected.flatten(1)).median() > 0.9
    assert AveragedStraightThrough().build(subject(noisy, x, y)) is None
    assert AveragedStraightThrough().build(subject(without, x, y, random=True)) is None


COUPLED = {
    "centred": lambda x: x - x.mean(0) + 0.3,
    "normalised": nn.BatchNorm2d(1, track_running_stats=False),
    "ranked": lambda x: x / x.mean((1, 2, 3)).max(),
}


@pytest.mark.parametrize("change", COUPLED.values(), ids=COUPLED)
def test_a_fixed_batch_gives_every_image_an_answer_of_its_own(change, digits_model, subject):
    net, x, y = digits_model
    model = Before(net, change).eval()
    view = FixedBatch(neighbours=5).build(subject(model, x, y))
    together = view(x)
    for few in (x[:1], x[3:9], x.flip(0)):
        rows = [int((x == each).flatten(1).all(1).nonzero()[0]) for each in few]
        torch.testing.assert_close(view(few), together[rows], rtol=1e-4, atol=1e-4)
    expected = model(torch.cat([x[7:8], x[:5]]))[0]
    torch.testing.assert_close(together[7], expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(model(x)[7], together[7], rtol=1e-3)
    assert not FixedBatch.faithful


def test_a_student_learns_the_answers_of_a_model_without_gradients(digits_model, subject):
    net, x, y = digits_model
    model = Before(net, lambda z: z.detach() + 0 * z)
    made = subject(model, x, y)
    view = Student(rounds=2, updates=60).build(made)
    near = made.threat.random_start(x, made.noise.fork("other"))
    agree = view(near).argmax(1) == model(near).argmax(1)
    assert agree.float().mean() > 0.8
    # It has gradients, and they say something about the model.
    assert made.gradients_of(view).unusable == 0
    assert made.gradients_of(view).agreement > 0.25
    again = Student(rounds=2, updates=60).build(subject(model, x, y))
    torch.testing.assert_close(view(x), again(x), rtol=1e-4, atol=1e-4)


def test_a_student_is_not_fooled_by_the_scale_of_the_logits(digits_model, subject):
    net, x, y = digits_model

    class Scaled(nn.Module):
        def forward(self, z):
            return 1e4 * net(z.detach()) + 0 * z.sum()

    view = Student(rounds=1, updates=60).build(subject(Scaled(), x, y, Threat("Linf", 0.1)))
    top = view(x).topk(2, dim=1).values
    assert 1 < float((top[:, 0] - top[:, 1]).median()) < 12
