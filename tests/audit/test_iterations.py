"""The check of an unrolled solver: what it tells, and the gradients that it finds hidden."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from robustbench_cli.audit import CHECKS
from robustbench_cli.core.registry import Spec
from robustbench_cli.data import DATASETS
from robustbench_cli.evaluation.verifier import unchanged_model
from robustbench_cli.models import MODELS, Shape
from robustbench_cli.models.unrolled import UnrolledSolver

from .test_battery_checks import battery_of


def examine(battery, **more):
    return list(CHECKS.build(Spec("iterations", more)).examine(battery))


class Idle(UnrolledSolver):
    """A solver of nothing: the image stays as it is.

    With its own iterations, three, the gradient is cut; with any others it is not.
    """

    def __init__(self, net):
        super().__init__()
        self.net, self.iterations = net, 3

    def forward(self, x):
        return self.net(x.detach() + 0 * x if self.iterations == 3 else x)


@pytest.fixture
def hidden(digits_model):
    """A battery of a net that answers alike whatever its iterations, and hides its gradient."""
    net, x, y = digits_model
    masked = nn.Sequential(Idle(net)).eval()
    with unchanged_model(masked):
        yield battery_of(masked, x[:16], y[:16])


def test_a_net_without_a_solver_has_nothing_to_check(digits_model):
    net, x, y = digits_model
    battery = battery_of(net, x[:4], y[:4])
    assert examine(battery) == []
    assert battery.measures[-1].text == "not made: the model unrolls no solver"


def test_gradients_that_stop_with_the_solver_are_found(hidden):
    more, none = examine(hidden)
    assert "crafted on the same weights with 12 iterations broke" in more.message
    assert "with no iterations (feed-forward) broke" in none.message
    for each in (more, none):
        assert each.severity == "warning"
        assert each.accuracy < float(hidden.claimed.share.mean())
    said = [each.text for each in hidden.measures]
    right, stood = int(hidden.right.sum()), int(hidden.standing.sum())
    assert said[0].startswith("with 12 iterations the same weights are right about")
    assert said[0].endswith(f"{right / 16:.1%} of the clean images (with 3: {right / 16:.1%})")
    assert said[2].startswith(f"of {right} images ")
    assert said[2].endswith(f"made for them (with 3: {stood})")
    assert int(said[2].split()[3]) < stood
    assert [each.passed for each in hidden.measures] == [None, None, None, False, False]


def test_few_images_prove_nothing(hidden):
    found = examine(hidden, least=17)
    assert {each.severity for each in found} == {"info"}
    assert all(each.passed for each in hidden.measures[3:])


def test_where_nothing_stands_only_the_changes_are_told(hidden):
    fallen = replace(hidden, claimed=replace(hidden.claimed, broken=hidden.right), measures=[])
    assert examine(fallen) == []
    assert len(fallen.measures) == 5
    assert all("nothing stood" in each.text for each in fallen.measures[3:])


def test_an_honest_pursuit_passes(pursuit_net):
    battery = battery_of(*pursuit_net, eps=0.05, spec="pgd20:restarts=3")
    assert all(each.severity == "info" for each in examine(battery, factor=2))
    assert "with 8 iterations the same weights" in battery.measures[0].text


@pytest.fixture
def pursuit_net():
    """A small deep pursuit with a head fitted to its features, and digits that it knows."""
    digits = DATASETS.build(Spec("digits")).load("train", None)
    x, y = digits.images(slice(200)), digits.y[:200]
    shape = Shape(1, 8, 8, 10, (0.3,), (0.4,))
    net = MODELS.build(Spec("deep-pursuit", {"iterations": 4, "width": 8})).build(shape).eval()
    with torch.no_grad():
        features = net.features(x).double()
        classes = nn.functional.one_hot(y, 10).double()
        solved = torch.linalg.solve(
            features.t() @ features + 0.1 * torch.eye(features.shape[1]).double(),
            features.t() @ classes,
        )
        net.head.weight.copy_(solved.t())
        net.head.bias.zero_()
    with unchanged_model(net):
        yield net, x[:16], y[:16]
