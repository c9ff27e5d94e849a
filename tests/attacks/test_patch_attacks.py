"""Attacks on a patch: where it lies, what it may be, and the steps written out by hand."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robustbench_cli.attacks import ATTACKS, Task
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.tensors import Tensors

PATCH = Threat("patch", 3)
TEXTS = [
    "patch-pgd:steps=8,restarts=3",
    "patch-pgd:steps=8,restarts=3,location=exhaustive",
    "lavan:steps=8",
    "lavan:steps=8,away=centre",
]


@pytest.fixture
def net():
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(2 * 64, 12), nn.Tanh(), nn.Linear(12, 4)).double()


@pytest.fixture
def images(net):
    x = torch.rand(20, 2, 8, 8).double()
    return x, net(x).argmax(1)


def windows(x_adv, x):
    """The rows and columns that the changes of each image span."""
    for a, c in zip(x_adv, x, strict=True):
        rows, columns = (a != c).any(0).nonzero().T
        yield (rows.min(), rows.max(), columns.min(), columns.max()) if len(rows) else None


@pytest.mark.parametrize("text", TEXTS)
def test_only_a_window_changes(text, net, images, run):
    x, y = images
    found = run(net, x, y, text, PATCH)
    for spans in windows(found.x, x):
        assert spans is None or max(spans[1] - spans[0], spans[3] - spans[2]) <= 2
    assert found.broken.any()
    assert net(found.x[found.broken]).argmax(1).ne(y[found.broken]).all()
    assert (found.norm <= 3).all()
    assert torch.equal(run(net, x, y, text, PATCH, slots=3).broken, found.broken)


def test_a_larger_patch_breaks_more(net, images, run):
    x, y = images
    broken = [run(net, x, y, TEXTS[0], Threat("patch", side)).broken.sum() for side in (1, 3, 6)]
    assert broken[0] < broken[1] < broken[2]


def test_the_steps_are_those_of_the_formula(net, images, run):
    """Of one place, over the whole image, from the clean values: sign steps on the loss."""
    x, y = images
    text = "patch-pgd:steps=5,restarts=1,start=clean,step=0.03,last_iterate=true"
    found = run(net, x, y, text, Threat("patch", 8))
    z = x.clone()
    for _ in range(5):
        leaf = z.clone().requires_grad_()
        F.cross_entropy(net(leaf), y, reduction="sum").backward()
        z = (z + 0.03 * leaf.grad.sign()).clamp(0, 1)
    torch.testing.assert_close(found.x, z)
    assert torch.equal(found.broken, net(z).argmax(1) != y)


class OneSpot(nn.Module):
    """Wrong once the mean of one 3 x 3 window is high; elsewhere nothing matters."""

    def __init__(self, row, column):
        super().__init__()
        self.rows, self.columns = slice(row, row + 3), slice(column, column + 3)

    def forward(self, x):
        score = x[:, :, self.rows, self.columns].mean((1, 2, 3))
        return torch.stack([0.9 + 0 * score, score], 1)


def test_an_exhaustive_search_finds_the_one_window_that_matters(run):
    x, y = torch.full((4, 1, 12, 12), 0.2), torch.zeros(4, dtype=torch.long)
    text = "patch-pgd:steps=40,restarts=1,location="
    assert run(OneSpot(5, 2), x, y, text + "exhaustive", PATCH).broken.all()
    assert not run(OneSpot(5, 2), x, y, text + "random", PATCH).broken.any()


def test_random_places_find_it_among_many(run):
    x, y = torch.full((4, 1, 6, 6), 0.2), torch.zeros(4, dtype=torch.long)
    found = run(OneSpot(2, 0), x, y, "patch-pgd:steps=40,restarts=80", PATCH)
    assert found.broken.all()  # 80 of 16 places, by chance
    assert (found.by > 0).any()
    for spans in windows(found.x, x):
        assert spans == (2, 4, 0, 2)


def place_of(text, task):
    """The upper left pixel of the window in which an attack begins."""
    attack = ATTACKS.build(Spec.parse(text))
    place = attack.places(task, torch.zeros_like(task.x))
    across = task.x.shape[3] - 2
    return torch.stack([place // across, place % across], 1)


@pytest.fixture
def task():
    x, y = torch.rand(60, 1, 9, 9), torch.zeros(60, dtype=torch.long)
    return Task(
        x=x, y=y, clean=torch.zeros(60, 4), threat=PATCH, noise=Noise(0, torch.arange(60)),
        restart_or_target=0, data=Tensors(x, y),
    )  # fmt: skip


def test_away_from_the_centre_are_the_corners(task):
    assert {tuple(p) for p in place_of("lavan:away=centre", task).tolist()} == {
        (0, 0), (0, 6), (6, 0), (6, 6)
    }  # fmt: skip


def test_away_from_the_object_is_where_the_loss_has_no_gradient(task):
    attack = ATTACKS.build(Spec.parse("lavan"))
    grad = torch.rand(60, 1, 9, 9) + 0.1
    grad[:, :, 4:7, 1:4] = 0
    assert set(attack.places(task, grad).tolist()) == {4 * 7 + 1}


def test_a_mask_says_what_the_object_is(task):
    free = torch.zeros(60, 1, 9, 9, dtype=torch.bool)
    free[:, :, 3:6, 5:8] = True
    masked = replace(task, threat=PATCH.bound(free))
    assert {tuple(p) for p in place_of("lavan:away=centre", masked).tolist()} == {(3, 5)}


def test_restarts_of_lavan_aim_at_one_class_after_the_other(net, images, run):
    """A class that is out of reach costs its restart; the next one is then aimed at."""
    x, y = images
    once, often = (run(net, x, y, f"lavan:steps=8,restarts={r}", PATCH) for r in (1, 3))
    assert (once.broken <= often.broken).all()
    aimed = run(net, x, y, "lavan:steps=8,restarts=1,target=2", PATCH)
    assert (net(aimed.x[aimed.broken]).argmax(1) == 2).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("patch-pgd:start=gauss", "start is uniform or clean within a patch, got 'gauss'"),
        ("patch-pgd:step=2", "less than or equal to 1"),
    ],
)
def test_what_means_nothing_in_a_patch_is_refused(text, message, build):
    with pytest.raises(ValueError, match=message):
        build(text)
