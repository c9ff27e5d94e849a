"""What the model normalises itself and --mean and --std normalise once more."""

import pytest
import torch
from torch import nn

from robustbench_cli.audit import Probe
from robustbench_cli.audit.twice_normalised import TwiceNormalised
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.threat import Threat
from robustbench_cli.models import Normalize
from robustbench_cli.models._around import FittedModel

LINF = Threat("Linf", 0.1)
MEAN, STD = (0.3,), (0.35,)


class Undone(nn.Module):
    """Takes normalised images back to [0, 1]: what follows was trained on these."""

    def forward(self, x):
        return x * STD[0] + MEAN[0]


class Named(nn.Module):
    """Somebody's own layer, with other names for its numbers."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mu", torch.tensor(MEAN))
        self.register_buffer("sigma", torch.tensor(STD))

    def forward(self, x):
        return (x - self.mu) / self.sigma


@pytest.fixture
def found(digits_model):
    net, x, y = digits_model

    def look(model, y=y):
        noise = Noise(0, torch.arange(len(x)))
        about = {"threat": LINF, "attacked": LINF, "noise": noise, "random": False, "stages": {}}
        return list(TwiceNormalised().look(Probe(model=model.eval(), x=x, y=y, **about)))

    return lambda before, *inside: look(FittedModel(nn.Sequential(*inside, net), before, []))


@pytest.mark.parametrize("own", [Normalize(MEAN, STD), Named()])
def test_a_second_normalisation_is_seen_however_little_it_costs(found, own):
    (said,) = found([Normalize((0.02,), (0.98,))], own, Undone())
    assert said.severity == "error"
    assert said.clean
    assert "normalises its images itself (0.m" in said.message  # 0.mean or 0.mu
    assert "leave these out" in said.message


def test_a_normalisation_that_does_not_help_is_mentioned(found):
    (said,) = found([Normalize((0.02,), (0.98,))])
    assert said.severity == "info"
    assert "may expect images as given" in said.message


def test_one_normalisation_on_either_side_is_right(found):
    given, own = Normalize(MEAN, STD), Normalize(MEAN, STD)
    assert not found([given], Undone())  # the model expects normalised images
    assert not found([], own, Undone())
    # An own layer that changes nothing, and one that the model needs beside what is given.
    assert not found([given], Normalize((0.0,), (1.0,)), Undone())
    assert not found([Normalize((0.9,), (0.1,))], Normalize((-9.0,), (10.0,)))
