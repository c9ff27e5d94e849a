"""MART's loss and its limits: with weight or boosted term replaced it equals known losses."""

import math

import pytest
import torch

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.defenses import DEFENSES
from robustbench_cli.defenses._step import Passes, Step

CLASSES = 4


def scored(name, beta, clean, adversarial, y):
    """Return one loss per example for given logits."""
    logits = {"clean": clean, "adv": adversarial}
    x = torch.zeros(len(y), 1, 2, 2).double()
    step = Step(
        model=torch.nn.Identity(),
        x=x,
        y=y,
        threat=Threat("Linf", 0.1),
        noise=Noise(0, torch.arange(len(y))),
    )
    objective = DEFENSES.build(Spec(name, {"beta": beta}))
    return objective.loss(step, Passes(torch.nn.Identity(), logits))


def probabilities(logits):
    """Return the softmax of one row, as plain numbers."""
    powers = [math.exp(value) for value in logits.tolist()]
    return [power / sum(powers) for power in powers]


def logits():
    clean, adversarial = 2 * torch.randn(2, 12, CLASSES).double()
    return clean, adversarial.requires_grad_(), torch.arange(12) % CLASSES


@pytest.mark.parametrize("beta", [1.0, 6.0])
def test_with_the_clean_cross_entropy_and_weight_one_it_is_trades(beta):
    """Plain numbers: CE(nat) + beta KL(p || q), whose slope along q's logits is beta (q - p)."""
    clean, adversarial, y = logits()
    weighted = scored("mart", beta, clean, adversarial, y) - scored(
        "mart", 0, clean, adversarial, y
    )
    (slope,) = torch.autograd.grad(weighted.sum(), adversarial)
    trades = scored("trades", beta, clean, adversarial, y)
    for i, label in enumerate(y.tolist()):
        p, q = probabilities(clean[i]), probabilities(adversarial[i])
        pairs = list(zip(p, q, strict=True))
        weight, natural = 1.0000001 - p[label], -math.log(p[label])
        expected = natural + beta * sum(a * math.log(a / b) for a, b in pairs)
        assert natural + weighted[i].item() / weight == pytest.approx(expected)
        assert trades[i].item() == pytest.approx(expected)
        assert (slope[i] / weight).tolist() == pytest.approx([beta * (b - a) for a, b in pairs])


def test_a_sure_and_right_clean_prediction_weighs_a_ten_millionth():
    """p_y = 1: the code's constant 1.0000001 keeps 1e-7 of the KL, which here is -log q_y."""
    clean = torch.tensor([[800.0, 0, 0, 0]]).double()
    adversarial = torch.tensor([[0.3, -0.2, 0.5, 0.1]]).double()
    y = torch.tensor([0])
    with_it, without = (scored("mart", beta, clean, adversarial, y) for beta in (1e6, 0))
    divergence = -math.log(probabilities(adversarial[0])[0])
    assert (with_it - without).item() == pytest.approx(1e6 * 1e-7 * divergence, rel=1e-6)


def test_a_sure_and_wrong_clean_prediction_weighs_all():
    clean = torch.tensor([[0, 800.0, 0, 0]]).double()
    adversarial = torch.tensor([[0.3, -0.2, 0.5, 0.1]]).double()
    y = torch.tensor([0])
    with_it, without = (scored("mart", beta, clean, adversarial, y) for beta in (6, 0))
    divergence = -math.log(probabilities(adversarial[0])[1])
    assert (with_it - without).item() == pytest.approx(6 * divergence, rel=1e-6)
