"""Float32 never proves what is not true: neither in the bounds nor in the model."""

from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

from robustbench_cli.bounds import EXACT, FLOAT32, InputBall, TracedModel
from robustbench_cli.bounds.interval import rounding_error
from robustbench_cli.bounds.margins import (
    crown_ibp_margins,
    crown_margins,
    ibp_margins,
    zonotope_margins,
)

METHODS = [ibp_margins, crown_ibp_margins, crown_margins, zonotope_margins]
CLASS_0 = torch.tensor([0])


def cancelling_net(seed: int) -> nn.Sequential:
    """A layer whose large terms cancel almost, so that float32 loses what is left of them."""
    torch.manual_seed(seed)
    first = nn.Linear(4, 4)
    large = 2.0 ** torch.randint(18, 22, (4, 2)) * (1 + torch.rand(4, 2))
    first.weight.data = torch.cat([large, -large], 1)
    first.bias.data = torch.randn(4) * 0.05
    last = nn.Linear(4, 2, bias=False)
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), last).requires_grad_(False)


def image(seed: int) -> Tensor:
    """An image whose first half is close to its second."""
    torch.manual_seed(1000 + seed)
    half = torch.rand(2)
    return torch.cat([half, half + 1e-7 * torch.randn(2)]).clamp(0, 1).view(1, 1, 1, 4)


def exact_margin(net: nn.Sequential, x: Tensor) -> Fraction:
    """The margin of class 0 over class 1 at one image, in exact arithmetic."""
    values = [Fraction(float(v)) for v in x.flatten()]
    for layer in net:
        if isinstance(layer, nn.Linear):
            bias = [0.0] * len(layer.weight) if layer.bias is None else layer.bias.tolist()
            values = [
                sum(Fraction(w) * v for w, v in zip(row, values, strict=True)) + Fraction(b)
                for row, b in zip(layer.weight.tolist(), bias, strict=True)
            ]
        elif isinstance(layer, nn.ReLU):
            values = [max(v, Fraction(0)) for v in values]
    return values[0] - values[1]


@pytest.mark.parametrize("method", METHODS)
def test_plain_float32_proves_what_is_false_and_the_bounds_do_not(method) -> None:
    """Balls that are hardly more than a point, over nets whose large terms cancel in float32."""
    false_by_float32 = false_by_model = 0
    for seed in range(40):
        net, x = cancelling_net(seed), image(seed)
        true, logits = exact_margin(net, x), net(x)[0]
        seen = Fraction(float(logits[0])) - Fraction(float(logits[1]))
        traced, eps = TracedModel(net), torch.tensor([1e-12])
        plain = method(traced.lowered(x.shape[1:]), InputBall(x=x, eps=eps), CLASS_0, 2, EXACT)
        false_by_float32 += float(plain[0, 1]) > 0 >= true
        graph = traced.lowered(x.shape[1:], torch.float64)
        ball = InputBall(x=x.double(), eps=eps.double())
        # Exact bounds in float64 are right, but not about the model that computes in float32.
        false_by_model += float(method(graph, ball, CLASS_0, 2, EXACT)[0, 1]) > 0 >= seen
        careful = method(graph, ball, CLASS_0, 2, FLOAT32)
        assert Fraction(float(careful[0, 1])) <= min(true, seen)
    assert false_by_float32 > 0
    assert false_by_model > 0


def test_the_slack_does_not_stand_in_the_way_of_real_proofs() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 50), nn.ReLU(), nn.Linear(50, 2))
    x = torch.rand(1, 1, 8, 8)
    graph = TracedModel(net.requires_grad_(False)).lowered(x.shape[1:], torch.float64)
    ball = InputBall(x=x.double(), eps=torch.tensor([1e-3]).double())
    for method in METHODS:
        careful, exact = (method(graph, ball, CLASS_0, 2, unit) for unit in (FLOAT32, EXACT))
        assert 0 < float((exact - careful)[0, 1]) < 1e-4


@pytest.mark.parametrize("n", [2, 64, 4096])
def test_no_sum_in_float32_is_further_off_than_the_bound(n) -> None:
    torch.manual_seed(n)
    a, b = torch.randn(200, n), torch.randn(n)
    exact = a.double() @ b.double()
    bound = rounding_error(n, a.double().abs() @ b.double().abs(), FLOAT32)
    running = torch.zeros(200)
    for k in range(n):  # one after the other, the worst order
        running = running + a[:, k] * b[k]
    for found in (a @ b, running):
        assert ((found.double() - exact).abs() <= bound).all()


def test_a_sum_too_long_for_float32_bounds_nothing() -> None:
    assert rounding_error(2**24, torch.ones(1), FLOAT32).isinf().all()
