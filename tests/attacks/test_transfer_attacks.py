"""Input diversity, blurred gradients and Carmon's PGD."""

import copy

import pytest
import torch
import torch.nn.functional as F

from robustbench_cli.attacks.di_fgsm import diverse
from robustbench_cli.attacks.ti_fgsm import blurred, gaussian
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.threat import Threat

LINF = Threat("Linf", 0.2)
NAMES = ["di-fgsm", "ti-fgsm:kernel=3", "ti-fgsm:prob=0.4,kernel=5", "pg-ours:steps=8,restarts=2"]
every = pytest.mark.parametrize("text", NAMES)


def test_diverse_images_are_images_and_each_is_its_own():
    x = torch.rand(1, 3, 12, 10).double().expand(6, 3, 12, 10)
    noise = Noise(0, torch.arange(6))
    moved = diverse(x, 0.7, noise)
    assert moved.shape == x.shape
    assert moved.dtype == x.dtype
    assert moved.min() >= 0
    assert moved.max() <= 1
    for i in range(6):
        assert all((moved[i] - moved[j]).abs().max() > 0.05 for j in range(i))
        assert (moved[i] - x[i]).abs().max() > 0.05
    torch.testing.assert_close(diverse(x, 1.0, noise), x)
    rows = torch.tensor([4, 1])
    torch.testing.assert_close(diverse(x[rows], 0.7, noise.only(rows)), moved[rows])
    later = diverse(x, 0.7, noise.at(torch.tensor([0, 0, 0, 5, 5, 5])))
    assert (later - moved).abs().flatten(1).amax(1).min() > 0.05


def test_diverse_is_bilinear_interpolation_on_black():
    x, noise = torch.rand(5, 2, 9, 9).double(), Noise(3, torch.arange(5))
    drawn = noise.uniform(x.new_empty(5, 3))
    size = 1 - 0.4 * drawn[:, 0]
    middle = (1 - size[:, None]) * (2 * drawn[:, [2, 1]] - 1)  # across, then down
    theta = torch.zeros(5, 2, 3).double()
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / size
    theta[:, :, 2] = -middle / size[:, None]
    grid = F.affine_grid(theta, [5, 2, 9, 9], align_corners=False)
    expected = F.grid_sample(x, grid, padding_mode="zeros", align_corners=False)
    torch.testing.assert_close(diverse(x, 0.6, noise), expected)


def test_gradients_go_through_the_transformation():
    x = torch.rand(2, 1, 6, 6).double().requires_grad_()
    noise = Noise(0, torch.arange(2))
    assert torch.autograd.gradcheck(lambda z: diverse(z, 0.6, noise), x)


class Spy(torch.nn.Module):
    """A net that no image misleads, and what it was shown with gradients on."""

    def __init__(self):
        super().__init__()
        self.shown = []

    def forward(self, x):
        if x.requires_grad:
            self.shown.append(x.detach().clone())
        score = x.flatten(1).mean(1)
        return torch.stack([score + 9, -score], 1)


def test_images_are_transformed_as_often_as_asked_and_never_at_the_last_look(run):
    x, y = torch.ones(40, 1, 8, 8), torch.zeros(40, dtype=torch.long)

    def turned(text):
        spy = Spy()
        run(spy, x, y, text, Threat("Linf", 0.01))
        # White images within 0.01 of white: anything darker is the border of a shrunken one.
        return torch.stack([shown.flatten(1).amin(1) < 0.9 for shown in spy.shown])

    always, half = turned("di-fgsm:prob=1,rate=0.5"), turned("di-fgsm:rate=0.5")
    assert always.shape == (11, 40)
    assert always[:-1].float().mean() > 0.95
    assert not always[-1].any()
    assert not half[-1].any()
    assert 0.4 < half[:-1].float().mean() < 0.6
    # Rows and steps each draw for themselves.
    assert half[:-1].float().mean(0).std() > 0.05
    assert half[:-1].float().mean(1).std() > 0.02
    assert not turned("ti-fgsm").any()


def test_only_looks_at_the_image_itself_count(digits_model, run):
    net, x, y = digits_model
    found = run(net, x, y, "di-fgsm:prob=1")
    assert found.broken.sum() > 12
    assert found.step[found.broken].eq(10).all()
    often = run(net, x, y, "di-fgsm:prob=0.5")
    assert (often.step[often.broken] < 10).any()


def test_the_kernel_is_a_gaussian_that_sums_to_one():
    weights = gaussian(15, torch.zeros(1).double())
    assert weights.sum() == pytest.approx(1)
    torch.testing.assert_close(weights, weights.flip(0))
    # Three standard deviations at the seventh pixel from the middle.
    assert weights[14] / weights[7] == pytest.approx(torch.tensor(-4.5).exp().item())
    dot = torch.zeros(2, 3, 21, 21).double()
    dot[0, 1, 10, 10] = 1
    spread = blurred(dot, weights)
    assert spread.shape == dot.shape
    torch.testing.assert_close(spread[0, 1, 3:18, 3:18], torch.outer(weights, weights))
    assert spread[0, 1].sum() == pytest.approx(1)
    assert spread[1].abs().max() == spread[0, [0, 2]].abs().max() == 0


def test_a_kernel_of_one_pixel_is_mim(digits_model, run):
    net, x, y = digits_model
    plain = run(net, x, y, "mim", early_stop=False)
    same = run(net, x, y, "ti-fgsm:kernel=1", early_stop=False)
    assert torch.equal(plain.x, same.x)
    assert torch.equal(plain.x, run(net, x, y, "di-fgsm:prob=0", early_stop=False).x)
    assert not torch.equal(plain.x, run(net, x, y, "ti-fgsm:kernel=3", early_stop=False).x)
    assert not torch.equal(plain.x, run(net, x, y, "di-fgsm", early_stop=False).x)


@every
def test_they_break_a_net_and_a_neighbour_of_it(text, digits_model, run):
    net, x, y = digits_model
    other = copy.deepcopy(net)
    for weight in other.parameters():
        weight.add_(0.1 * weight.std() * torch.randn_like(weight)) if weight.ndim > 1 else None
    assert (other(x).argmax(1) != y).sum() < 6
    found = run(net, x, y, text, early_stop=False)
    assert found.broken.sum() >= 18
    assert (other(found.x).argmax(1) != y).sum() >= 16


@every
def test_verdicts_depend_on_the_example_alone(text, digits_model, run):
    net, x, y = digits_model
    net, x, threat = copy.deepcopy(net).double(), x.double(), Threat("Linf", 0.14)
    whole = run(net, x, y, text, threat)
    assert 2 < whole.broken.sum() < 23
    few = run(net, x, y, text, threat, slots=3)
    rows = torch.tensor([17, 3, 11, 4, 20])
    alone = run(net, x[rows], y[rows], text, threat, ids=rows)
    assert torch.equal(few.broken, whole.broken)
    assert torch.equal(few.step, whole.step)
    assert torch.equal(alone.broken, whole.broken[rows])
    torch.testing.assert_close(alone.x, whole.x[rows], rtol=0, atol=1e-9)


@every
@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.1), ("L2", 0.8), ("L1", 4.0)])
def test_images_stay_in_the_ball(text, norm, eps, digits_model, run):
    net, x, y = digits_model
    found = run(net, x, y, text, Threat(norm, eps))
    assert Threat(norm, eps).inside(found.x, x).all()
    assert (net(found.x).argmax(1) != y).equal(found.broken)


def test_pg_ours_is_carmon_s(build):
    attack = build("pg-ours")
    assert (attack.steps, attack.restarts, attack.start) == (40, 5, "uniform")
    assert attack.step * 0.031 == pytest.approx(0.01)
    assert len(attack.stages(LINF, 10)) == 5


def test_names_and_limits(build):
    assert build("di-fgsm20").steps == build("di2-fgsm-20").steps == 20
    assert build("di-fgsm20").stride == 1 / 20
    assert build("ti-fgsm5").kernel == 15
    with pytest.raises(UserError, match="odd"):
        build("ti-fgsm:kernel=4")
    with pytest.raises(UserError, match="rate"):
        build("di-fgsm:rate=1.1")
