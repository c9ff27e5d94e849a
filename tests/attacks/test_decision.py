"""Decision-based attacks: distances that are known, labels only, and a budget of queries."""

import pytest
import torch
from torch import nn

from robustbench_cli.attacks._decision import NOISE_IMAGES
from robustbench_cli.core.threat import Masked, Threat

WALKS = ["boundary", "hop-skip-jump"]
every_walk = pytest.mark.parametrize("name", WALKS)
TINY = {"L2": Threat("L2", 1e-3), "Linf": Threat("Linf", 1e-3)}
"""The radius must not matter."""


class Plane(nn.Module):
    """Two classes by a plane at a known distance; ``decided``: logits say the class alone."""

    def __init__(self, weight, distance, norm="L2", decided=False):
        super().__init__()
        dual = torch.linalg.vector_norm(weight, ord={"L2": 2, "Linf": 1}[norm])
        self.weight, self.offset, self.decided = weight, distance * dual, decided

    def forward(self, x):
        score = (x - 0.5).flatten(1) @ self.weight.to(x) - self.offset
        score = score.sign() if self.decided else score
        return torch.stack([-score, score], 1)


def weight():
    return torch.randn(36, generator=torch.Generator().manual_seed(3))


IMAGES = torch.full((3, 1, 6, 6), 0.5), torch.zeros(3, dtype=torch.long)


@pytest.mark.parametrize(
    ("text", "norm", "at_most"),
    [
        ("boundary700", "L2", 1.9),
        ("hop-skip-jump700", "L2", 1.12),
        ("hop-skip-jump700", "Linf", 1.2),
    ],
)
def test_a_plane_is_found_at_its_distance(text, norm, at_most, run):
    distance = {"L2": 0.6, "Linf": 0.1}[norm]
    plane = Plane(weight(), distance, norm)
    found = run(plane, *IMAGES, text, TINY[norm])
    assert found.broken.all()
    assert plane(found.x).argmax(1).eq(1).all()
    share = found.norm / distance
    assert (share > 1 - 1e-5).all()
    assert (share < at_most).all(), share


@every_walk
def test_logits_beyond_the_class_change_nothing(name, run):
    soft, hard = (
        run(Plane(weight(), 0.6, decided=decided), *IMAGES, f"{name}200", TINY["L2"])
        for decided in (False, True)
    )
    assert soft.broken.all()
    for field in ("x", "norm", "step", "forwards"):
        assert torch.equal(getattr(soft, field), getattr(hard, field)), field


@every_walk
def test_every_query_is_counted_and_none_has_a_gradient(name, run):
    calls = []

    class Counting(Plane):
        def forward(self, x):
            calls.append((len(x), torch.is_grad_enabled()))
            return super().forward(x)

    found = run(Counting(weight(), 0.6), *IMAGES, f"{name}150", TINY["L2"])
    # The clean logits, the check that the image stays wrong, and the verdict.
    assert found.forwards.eq(150 + 3).all()
    assert not found.backwards.any()
    assert not any(enabled for _, enabled in calls)
    assert sum(rows for rows, _ in calls if rows == 3) == 3 * (150 + 3)


@every_walk
def test_a_short_run_is_the_beginning_of_a_long_one(name, run):
    """So a table over budgets compares lengths, and more queries are never worse."""
    seen = []

    class Watched(Plane):
        def forward(self, x):
            seen.append(x.clone())
            return super().forward(x)

    few = run(Watched(weight(), 0.6), *IMAGES, f"{name}80", TINY["L2"])
    short = len(seen)
    many = run(Watched(weight(), 0.6), *IMAGES, f"{name}300", TINY["L2"])
    assert (many.norm < few.norm).all()
    for k in range(2, 70):
        assert torch.equal(seen[k], seen[short + k]), k


@every_walk
@pytest.mark.parametrize("target", ["", ":target=2"])
def test_where_noise_does_not_help_an_image_of_another_class_does(name, target, run):
    """Class 0 but for a bright first row, which no noise has; class 2 if the second is, too."""

    class Rows(nn.Module):
        def forward(self, x):
            first, second = (x[:, 0, k].mean(1) for k in range(2))
            one, two = 40 * (first - 0.9), 40 * (torch.minimum(first, second) - 0.9) + 0.5
            return torch.stack([0 * one, one, two], 1)

    x, y = torch.full((3, 1, 6, 6), 0.2), torch.tensor([0, 1, 2])
    x[1, 0, 0], x[2, 0, :2] = 1, 1
    assert torch.equal(Rows()(x).argmax(1), y)
    # With a target its image comes first; else after the noise.
    few, many = (60, 60) if target else (NOISE_IMAGES, NOISE_IMAGES + 60)
    assert bool(run(Rows(), x, y, f"{name}{few}{target}", TINY["L2"]).broken[0]) == bool(target)
    found = run(Rows(), x, y, f"{name}{many}{target}", TINY["L2"])
    assert found.broken[:2].all()
    reached = Rows()(found.x[:2]).argmax(1)
    assert reached.eq(2).all() if target else reached.ne(y[:2]).all()


@every_walk
def test_closed_pixels_stay_as_they_are(name, run):
    free = torch.zeros(3, 1, 6, 6, dtype=torch.bool)
    free[..., :3] = True
    threat = Masked("L2", 1e-3, free=free)
    seen = []

    class Watched(Plane):
        def forward(self, x):
            seen.append(x.clone())
            return super().forward(x)

    found = run(Watched(weight(), 0.3), *IMAGES, f"{name}500", threat)
    assert found.broken.all()
    assert all(torch.equal(each[..., 3:], IMAGES[0][: len(each), :, :, 3:]) for each in seen)
    open_part = torch.linalg.vector_norm(weight().view(6, 6)[:, :3])
    nearest = 0.3 * torch.linalg.vector_norm(weight()) / open_part
    assert (found.norm > nearest * (1 - 1e-5)).all()
    assert (found.norm < nearest * (2.4 if name == "boundary" else 1.15)).all()


def test_what_no_query_finds_is_said(run):
    class Constant(nn.Module):
        def forward(self, x):
            return torch.tensor([[1.0, 0.0]]) + 0 * x.flatten(1)[:, :1]

    for name in WALKS:
        found = run(Constant(), *IMAGES, f"{name}150", TINY["L2"])
        assert not found.broken.any()
        assert found.norm.isinf().all()
        assert torch.equal(found.x, IMAGES[0])


def test_boundary_grows_its_steps_on_a_plane_and_ends_where_it_cannot(build, run):
    """At a corner so sharp that every step fails, both lengths shrink until the walk ends."""

    class Needle(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("only", torch.rand(1, 1, 2, 2) * 0.4 + 0.6)

        def forward(self, x):
            line = (self.only - 0.2).flatten(1)
            away = (x - 0.2).flatten(1)
            along = (away * line).sum(1, keepdim=True) / (line * line).sum()
            off = torch.linalg.vector_norm(away - along * line, dim=1) > 1e-3
            wrong = (~off & (along[:, 0] > 0.5)).float()
            return torch.stack([1 - 2 * wrong, wrong], 1)

    # The needle is found from an image of the other class, its tip.
    net = Needle()
    x = torch.cat([torch.full((1, 1, 2, 2), 0.2), net.only])
    y = net(x).argmax(1)
    assert y.tolist() == [0, 1]
    found = run(net, x[:2], y, "boundary20000", TINY["L2"])
    length = torch.linalg.vector_norm(net.only - 0.2)
    assert found.broken[0]
    assert 0.5 * length < found.norm[0] < 0.53 * length
    assert found.forwards[0] < 20000
