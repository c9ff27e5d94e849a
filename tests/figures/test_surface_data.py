"""The loss on a plane through an image, against cross-entropies computed one by one."""

import pytest
import torch
import torch.nn.functional as F

from robustbench_cli.attacks.fgsm import FGSM
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.batch_attack import attack_batch
from robustbench_cli.figures._surface_data import POINTS_PER_BATCH, surface

EPS = 0.05
OFFSETS = torch.tensor([-2, -1, 0, 1, 2]).double() * EPS
FOURTH = Noise(0, torch.tensor([3]), "surface")


@pytest.fixture
def one(model):
    """Return a float64 model and an image that no step of eps takes out of the box."""
    model.eval()
    return model, 0.3 + 0.4 * torch.rand(1, 1, 8, 8).double(), torch.tensor([2])


def loss_of(model, x, y):
    with torch.no_grad():
        return float(F.cross_entropy(model(x), y))


def gradient_of(model, x, y):
    x = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(F.cross_entropy(model(x), y), x)
    return grad


def test_the_middle_is_the_image_itself(one):
    model, x, y = one
    found = surface(model, x, y, Threat(eps=EPS), FOURTH, OFFSETS)
    assert float(found.loss[2, 2]) == pytest.approx(loss_of(model, x, y), rel=1e-12)
    assert float(found.distance[2, 2]) == 0
    assert found.loss.shape == found.margin.shape == found.distance.shape == (5, 5)


def test_eps_along_the_gradient_is_the_fgsm_image(one):
    model, x, y = one
    threat = Threat(eps=EPS)
    found = surface(model, x, y, threat, FOURTH, OFFSETS)
    by_hand = x + EPS * gradient_of(model, x, y).sign()
    assert float(found.loss[3, 2]) == pytest.approx(loss_of(model, by_hand, y), rel=1e-12)
    crafted = attack_batch(model, x, y, FGSM(), threat, FOURTH, early_stop=False).x
    assert float(found.loss[3, 2]) == pytest.approx(loss_of(model, crafted, y), rel=1e-9)


def test_clipped_images_are_those_of_the_attack(one):
    model, x, y = one
    x = x.round()  # at the walls of the box: half of the pixels cannot move
    found = surface(model, x, y, Threat(eps=EPS), FOURTH, OFFSETS, clip=True)
    by_hand = (x + EPS * gradient_of(model, x, y).sign()).clamp(0, 1)
    assert float(found.loss[3, 2]) == pytest.approx(loss_of(model, by_hand, y), rel=1e-12)
    free = surface(model, x, y, Threat(eps=EPS), FOURTH, OFFSETS)
    assert float(free.loss[3, 2]) != pytest.approx(float(found.loss[3, 2]), rel=1e-3)


class Seen(torch.nn.Module):
    """A model that records its inputs."""

    def __init__(self, model):
        super().__init__()
        self.model, self.images = model, []

    def forward(self, x):
        self.images.append(x.detach().clone())
        return self.model(x)


def test_the_images_are_those_of_the_plane(one):
    model, x, y = one
    seen = Seen(model)
    surface(seen, x, y, Threat(eps=EPS), FOURTH, OFFSETS)
    images = seen.images[-1].view(5, 5, *x.shape[1:])
    signs = (images[2, 3] - images[2, 2]) / EPS
    assert torch.allclose(signs.abs(), torch.ones_like(signs), rtol=1e-6)
    assert 16 < (signs > 0).sum() < 48  # of 64 fair coins
    steps = OFFSETS
    expected = (
        x
        + steps.view(5, 1, 1, 1, 1) * gradient_of(model, x, y).sign()
        + steps.view(1, 5, 1, 1, 1) * signs.round()
    )
    assert torch.allclose(images, expected, rtol=1e-6)


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_both_axes_are_in_units_of_the_norm(one, norm):
    model, x, y = one
    found = surface(model, x, y, Threat(norm, EPS), FOURTH, OFFSETS)
    along_axes = torch.stack([found.distance[:, 2], found.distance[2]])
    assert torch.allclose(along_axes, OFFSETS.abs().expand(2, 5), rtol=1e-6)


def test_under_linf_the_ball_is_a_diamond(one):
    model, x, y = one
    found = surface(model, x, y, Threat(eps=EPS), FOURTH, OFFSETS)
    expected = OFFSETS.abs()[:, None] + OFFSETS.abs()
    assert torch.allclose(found.distance, expected, rtol=1e-6)


def test_positive_margins_are_mistakes(one):
    model, x, y = one
    offsets = torch.linspace(-1, 1, 21)
    found = surface(model, x, y, Threat(eps=EPS), FOURTH, offsets)
    assert 0 < (found.margin > 0).sum() < 21 * 21  # the decision boundary is on the plane
    assert (found.loss[found.margin > 0] > torch.log(torch.tensor(2.0))).all()


def test_the_same_key_gives_the_same_plane_in_any_batches(one):
    model, x, y = one
    offsets = torch.linspace(-EPS, EPS, 21)
    assert len(offsets) ** 2 > POINTS_PER_BATCH
    told = []
    found = surface(
        model, x, y, Threat(eps=EPS), FOURTH, offsets, done=lambda *done: told.append(done)
    )
    again = surface(model, x, y, Threat(eps=EPS), FOURTH, offsets[::4])
    assert torch.allclose(found.loss[::4, ::4], again.loss, rtol=1e-9)
    assert told == [(POINTS_PER_BATCH, 441), (441, 441)]
    other = surface(model, x, y, Threat(eps=EPS), Noise(1, FOURTH.ids, "surface"), offsets)
    assert torch.allclose(found.loss[:, 10], other.loss[:, 10], rtol=1e-12)  # the gradient's axis
    assert not torch.allclose(found.loss, other.loss, rtol=1e-3)


def test_a_gradient_of_zero_has_no_direction(one):
    _, x, y = one
    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4).double())
    with torch.no_grad():
        flat[1].weight.zero_()
    with pytest.raises(UserError, match="choose another with image=INDEX"):
        surface(flat, x, y, Threat(eps=EPS), FOURTH, OFFSETS)
