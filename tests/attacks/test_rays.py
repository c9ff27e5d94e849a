"""RayS: the exact distance of a plane, the border of the radius, and nothing but labels."""

import pytest
import torch
from torch import nn

from robustbench_cli.core.threat import Threat


class Plane(nn.Module):
    """Two classes by a plane whose distance in Linf is known; its logits may be anything."""

    def __init__(self, weight, offset, decided=False):
        super().__init__()
        self.weight, self.offset, self.decided = weight, offset, decided

    def forward(self, x):
        score = (x - 0.5).flatten(1) @ self.weight - self.offset
        score = score.sign() if self.decided else score
        return torch.stack([-score, score], 1)


def plane(distance, decided=False):
    """A few signs must be turned, after which the first ray, all of one sign, is a poor one."""
    torch.manual_seed(5)
    weight = 0.3 + torch.rand(16)
    weight[[2, 3, 9]] *= -1
    return Plane(weight, distance * weight.abs().sum(), decided)


IMAGES = torch.full((3, 1, 4, 4), 0.5), torch.zeros(3, dtype=torch.long)


@pytest.mark.parametrize("decided", [False, True])
@pytest.mark.parametrize("factor", [0.98, 1.05])
def test_a_plane_falls_at_its_exact_distance(factor, decided, run):
    """``decided``: logits that are the class and nothing else; they make no difference."""
    model, threat = plane(0.2, decided), Threat("Linf", 0.2 * factor)
    found = run(model, *IMAGES, "rays800", threat)
    assert found.broken.all() == (factor > 1)
    if factor > 1:
        assert (found.norm <= threat.eps * 1.00001).all()
        assert model(found.x).argmax(1).eq(1).all()


def test_logits_beyond_the_label_change_nothing(run):
    threat = Threat("Linf", 0.25)
    soft, hard = (run(plane(0.2, decided), *IMAGES, "rays500", threat) for decided in (False, True))
    assert soft.broken.all()
    for name in ("x", "step", "forwards"):
        assert torch.equal(getattr(soft, name), getattr(hard, name)), name


def test_it_counts_its_queries_and_makes_no_backward_pass(run, build):
    assert build("rays").queries == 1000
    found = run(plane(0.4), *IMAGES, "rays50", Threat("Linf", 0.1))
    assert not found.broken.any()
    assert found.forwards.eq(52).all()  # with the clean logits and the verdict
    assert not found.backwards.any()


def test_it_breaks_a_net_without_gradients(digits_model, run):
    net, x, y = digits_model

    class Labels(nn.Module):
        def forward(self, z):
            return nn.functional.one_hot(net(z).argmax(1), 10) + 0.0 * z.sum((1, 2, 3))[:, None]

    threat = Threat("Linf", 0.2)
    pgd, rays = (run(Labels(), x, y, name, threat).broken.sum() for name in ("pgd20", "rays500"))
    true = run(net, x, y, "pgd20", threat).broken.sum()
    assert rays > pgd + (true - pgd) / 2
