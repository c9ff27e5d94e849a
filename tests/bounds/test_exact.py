"""Bounds that are known by hand."""

import pytest
import torch
from torch import Tensor, nn

from robustbench_cli.bounds import (
    RELU_TRANSFORMERS,
    BoundGraph,
    InputBall,
    TracedModel,
    crown_ibp_margins,
    crown_margins,
    ibp_margins,
    zonotope_margins,
)


def graph_of(*layers: nn.Module, image: tuple[int, ...] = (1, 1, 2)) -> BoundGraph:
    model = nn.Sequential(*layers).double().eval().requires_grad_(False)
    return TracedModel(model).lowered(torch.Size(image), torch.float64)


def linear(weight: list[list[float]], bias: list[float] | None = None) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight), bias=bias is not None)
    layer.weight.data = torch.tensor(weight)
    if bias is not None:
        layer.bias.data = torch.tensor(bias)
    return layer


def ball(x: list[float], eps: float, norm: str = "Linf") -> InputBall:
    one = torch.tensor(x, dtype=torch.float64).view(1, 1, 1, -1)
    return InputBall(x=one, eps=torch.tensor([eps], dtype=torch.float64), norm=norm)


CLASS_0 = torch.tensor([0])
METHODS = [ibp_margins, crown_ibp_margins, crown_margins]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("norm", "reach"),
    [
        # The margin is 3 a - 4 b + 1 around (0.5, 0.4): 0.9, less eps times the dual norm.
        ("Linf", 0.1 * 7),
        ("L2", 0.1 * 5),
        ("L1", 0.1 * 4),
    ],
)
def test_a_linear_model_is_bounded_exactly(method, norm, reach) -> None:
    graph = graph_of(nn.Flatten(), linear([[2.0, -1.0], [-1.0, 3.0]], [1.0, 0.0]))
    found = method(graph, ball([0.5, 0.4], 0.1, norm), CLASS_0, 2)
    assert found.tolist() == [[0, pytest.approx(0.9 - reach, abs=1e-12)]]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_the_box_ends_at_0_and_1(method, norm) -> None:
    """At x = (1, 0) only the inner half of each pixel's interval is left."""
    graph = graph_of(nn.Flatten(), linear([[1.0, -1.0], [0.0, 0.0]]))
    found = method(graph, ball([1.0, 0.0], 0.5, norm), CLASS_0, 2)
    # 0.5 - 0.5 by the box; by the dual norms 1 - 0.5 sqrt(2) and 1 - 0.5.
    least = {"Linf": 0.0, "L2": 1 - 0.5 * 2**0.5, "L1": 0.5}[norm]
    assert float(found[0, 1]) == pytest.approx(least, abs=1e-12)


def test_the_last_layer_is_folded_into_the_margins() -> None:
    """Both logits share a feature, which cancels in their difference."""
    graph = graph_of(nn.Flatten(), nn.ReLU(), linear([[1.0, 1.0], [1.0, 0.0]]))
    found = ibp_margins(graph, ball([0.5, 0.5], 0.25), CLASS_0, 2)
    logits = graph.intervals(ball([0.5, 0.5], 0.25))[graph.output]
    assert float(logits.low[0, 0] - logits.high[0, 1]) == pytest.approx(-0.25)
    assert float(found[0, 1]) == pytest.approx(0.25)


def test_relu_lines_are_those_of_crown() -> None:
    """h = relu(a + b - 1), k = relu(a - b), logits (0, h + k), a and b in [0, 1].

    Both pre-activations are in [-1, 1], so the upper line is (z + 1) / 2 and the lower one 0.
    The margin 0 - h - k is at least -(a + b - 1 + 1) / 2 - (a - b + 1) / 2 = -a - 1/2 >= -3/2; by
    intervals -2; the truth is -1.
    """
    layers = (
        nn.Flatten(),
        linear([[1.0, 1.0], [1.0, -1.0]], [-1.0, 0.0]),
        nn.ReLU(),
        linear([[0.0, 0.0], [1.0, 1.0]]),
    )
    graph, around = graph_of(*layers), ball([0.5, 0.5], 0.5)
    assert float(ibp_margins(graph, around, CLASS_0, 2)[0, 1]) == pytest.approx(-2)
    for method in (crown_ibp_margins, crown_margins):
        assert float(method(graph, around, CLASS_0, 2)[0, 1]) == pytest.approx(-1.5)


@pytest.mark.parametrize(("shift", "least"), [(0.1, -0.4), (-0.1, 0.0)])
def test_the_lower_line_follows_the_larger_side(shift, least) -> None:
    """relu(z), z = a - 0.5 + shift in [-0.5 + shift, 0.5 + shift]: slope 1 only if u > -l."""
    layers = (nn.Flatten(), linear([[1.0, 0.0], [0.0, 0.0]], [shift - 0.5, 0.0]), nn.ReLU())
    found = crown_margins(graph_of(*layers), ball([0.5, 0.5], 0.5), CLASS_0, 2)
    assert float(found[0, 1]) == pytest.approx(least)


def test_crown_tightens_the_inputs_of_activations() -> None:
    """x - x cancels behind a first layer: intervals do not see it, linear bounds do."""
    layers = (
        nn.Flatten(),
        linear([[1.0, 0.0], [1.0, 0.0]], [1.0, 1.0]),
        nn.ReLU(),  # both values are positive for certain, so this is the identity
        linear([[1.0, -1.0], [0.0, 0.0]], [0.25, 0.0]),
        nn.ReLU(),
        linear([[1.0, 0.0], [0.0, 0.0]]),
    )
    graph, around = graph_of(*layers), ball([0.5, 0.5], 0.5)
    assert float(ibp_margins(graph, around, CLASS_0, 2)[0, 1]) == pytest.approx(0)
    assert float(crown_margins(graph, around, CLASS_0, 2)[0, 1]) == pytest.approx(0.25)


def windows(x: Tensor) -> Tensor:
    return nn.functional.max_pool2d(x, 2)


def test_max_pooling_keeps_a_sure_winner_and_bounds_the_others() -> None:
    """A window with a sure winner is that pixel; another is between its best pixel and a bound."""
    weight = [[1.0, 0.0, -1.0, 0.0], [0.0] * 4]

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = linear(weight)

        def forward(self, x: Tensor) -> Tensor:
            # The last value is the first pixel itself: with a sure winner it cancels.
            pooled = windows(x).flatten(1)
            return self.last(torch.cat([pooled, x.flatten(1)[:, :2]], 1))

    graph = TracedModel(Net().double().requires_grad_(False)).lowered(
        torch.Size((1, 2, 4)), torch.float64
    )
    sure = torch.tensor([[0.8, 0.1, 0.3, 0.3], [0.1, 0.1, 0.3, 0.3]]).double().view(1, 1, 2, 4)
    eps = torch.tensor([0.1]).double()
    found = crown_margins(graph, InputBall(x=sure, eps=eps), CLASS_0, 2)
    assert float(found[0, 1]) == pytest.approx(0)  # the pooled value less the pixel
    assert float(ibp_margins(graph, InputBall(x=sure, eps=eps), CLASS_0, 2)[0, 1]) < -0.15
    open_ = sure.clone()
    open_[0, 0, 0, 1] = 0.75
    found = crown_margins(graph, InputBall(x=open_, eps=eps), CLASS_0, 2)
    # At least the pixel with the largest lower bound: still 0.  At most the largest upper bound.
    assert float(found[0, 1]) == pytest.approx(0)
    upper = crown_margins(graph, InputBall(x=open_, eps=eps), torch.tensor([1]), 2)
    assert float(upper[0, 0]) == pytest.approx(-(0.9 - 0.7))


@pytest.mark.parametrize(
    ("kink", "least"), [("box", -2.0), ("diag", -3.0), ("switch", -2.0), ("smooth", -1.5)]
)
def test_zonotopes_share_their_error_terms(kink, least) -> None:
    """The net of the lines above: h = relu(a + b - 1), k = relu(a - b), margin -h - k.

    As boxes both are in [0, 1]; as diagonals they are z + [0, 1], and the z add up to 2 a - 1;
    half way between they are z / 2 + [0, 1/2].  At u = -l the switch takes the box.
    """
    layers = (
        nn.Flatten(),
        linear([[1.0, 1.0], [1.0, -1.0]], [-1.0, 0.0]),
        nn.ReLU(),
        linear([[0.0, 0.0], [1.0, 1.0]]),
    )
    margins = zonotope_margins(
        graph_of(*layers), ball([0.5, 0.5], 0.5), CLASS_0, 2, kink=RELU_TRANSFORMERS[kink]
    )
    assert float(margins[0, 1]) == pytest.approx(least)


def test_zonotopes_pass_linear_layers_exactly() -> None:
    layers = (
        nn.Flatten(),
        linear([[1.0, 1.0], [1.0, -1.0]], [2.0, 2.0]),
        nn.ReLU(),  # the identity here
        linear([[1.0, 1.0], [1.0, -1.0]]),
        linear([[0.5, -0.5], [0.0, 0.0]]),
    )
    graph, around = graph_of(*layers), ball([0.5, 0.5], 0.25)
    # (h + k) / 2 - (h - k) / 2 = k = a - b + 2
    assert float(zonotope_margins(graph, around, CLASS_0, 2)[0, 1]) == pytest.approx(1.5)
    assert float(ibp_margins(graph, around, CLASS_0, 2)[0, 1]) == pytest.approx(1.5)
    ends = graph.zonotopes(around, RELU_TRANSFORMERS["switch"])[0][graph.output].interval
    assert ends.low.tolist() == [[pytest.approx(1.5), 0]]
