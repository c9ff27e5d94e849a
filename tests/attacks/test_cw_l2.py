"""C&W in L2: what it returns is the nearest image that it saw, and c is searched between bounds."""

import pytest
import torch
from torch import nn

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.attacks.cw_l2 import CWL2
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.batch_attack import attack_batch


def attacked(net, x, y, text):
    attack = ATTACKS.build(Spec.parse(text))
    return attack_batch(net, x, y, attack, Threat("L2", 1.0), Noise(0, torch.arange(len(y))))


class Recorder(nn.Module):
    """A net that keeps every image that it is shown, and its answer."""

    def __init__(self, net):
        super().__init__()
        self.net, self.seen = net, []

    def forward(self, x):
        logits = self.net(x)
        self.seen.append((x.detach(), logits.detach().argmax(1)))
        return logits


@pytest.mark.parametrize("row", [0, 1, 2])
def test_the_nearest_wrong_image_of_all_searches_is_returned(row, digits_model):
    net, x, y = digits_model
    x, y = x[row : row + 1], y[row : row + 1]
    asked = Recorder(net).eval()
    found = attacked(asked, x, y, "cw-l2:steps=80,searches=4,c=10")
    distances = [
        float((image - x).norm()) for image, answer in asked.seen if int(answer[0]) != int(y[0])
    ]
    assert found.broken.all()
    assert len(distances) >= 5
    assert float(found.norm[0]) == pytest.approx(min(distances), rel=1e-5)


def test_every_c_lies_between_the_last_failure_and_the_least_success(digits_model, monkeypatch):
    net, x, y = digits_model
    tried, move = [], CWL2.move

    def recorded(self, state, observation, task):
        after = move(self, state, observation, task)
        ended = after["tried"] > state["tried"]
        tried.append((ended, state["c"], after["c"], after["low"], after["high"]))
        return after

    monkeypatch.setattr(CWL2, "move", recorded)
    attacked(net, x[:1], y[:1], "cw-l2:steps=40,searches=8,c=0.001")
    ends = [[float(value[0]) for value in values] for ended, *values in tried if ended[0]]
    assert len(ends) == 8
    failed, worked = 0.0, float("inf")
    for c, following, low, high in ends:
        # Each search settles one bound: the c that it tried.
        assert c in (low, high)
        failed, worked = (c, worked) if c == low else (failed, c)
        assert (low, high) == (failed, worked)
        assert low < following < high
        assert following == pytest.approx((low + high) / 2 if worked < float("inf") else 10 * c)
    assert worked < float("inf")
    assert failed > 0


def test_an_image_that_withstands_is_told_so_and_is_not_black(digits_model):
    """Others return a black image there, which counts as broken wherever black is misclassified."""
    net, x, y = digits_model
    found = attacked(net, x, y, "cw-l2:steps=3,searches=1,c=0.001")
    held = ~found.broken
    assert held.sum() > 12
    assert found.norm[held].isinf().all()
    assert (found.x[held].flatten(1).amax(1) > 0.5).all()
    black = net(torch.zeros_like(x[:1])).argmax(1)
    assert (y[held] != black).any()  # there the black image would have counted
