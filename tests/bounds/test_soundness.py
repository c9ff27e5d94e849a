"""Whatever is computed on a ball lies within the bounds: random points, and points of attacks."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from robustbench_cli.bounds import (
    FLOAT32,
    RELU_TRANSFORMERS,
    BoundGraph,
    InputBall,
    Interval,
    TracedModel,
    crown_ibp_margins,
    crown_margins,
    ibp_margins,
    zonotope_margins,
)
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.threat import Threat
from tests.bounds.nets import NETS, SHAPE, net

EXAMPLES, POINTS = 2, 1_000
BALLS = [Threat("Linf", 0.02), Threat("L2", 0.2), Threat("L1", 0.5)]


def images() -> Tensor:
    """Images of which some pixels are at the border of the box."""
    return (1.4 * torch.rand(EXAMPLES, 1, 8, 8) - 0.2).clamp(0, 1)


def points(model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
    """Random points of the ball around x (C, H, W), its border, and all iterates of attacks."""
    many = x.expand(POINTS // 4, *x.shape)
    noise = Noise(3, torch.arange(POINTS // 4))
    found = [threat.random_start(many, noise)]
    # Far out: random signs, or directions of the full length.
    found.append(
        threat.project(many + threat.eps * threat.direction(many, noise.fork("far")), many)
    )
    now = threat.random_start(many[:50], noise.only(torch.arange(50)).fork("attacks"))
    others = torch.tensor([k for k in range(SHAPE.classes) if k != int(y)])
    for _ in range(10):  # from 50 starts towards the other classes in turn
        leaf = now.detach().requires_grad_()
        logits = model(leaf)
        gap = logits[torch.arange(50), others[torch.arange(50) % len(others)]] - logits[:, y]
        (grad,) = torch.autograd.grad(gap.sum(), leaf)
        now = threat.project(leaf + threat.eps / 4 * threat.steepest(grad), many[:50]).detach()
        found.append(now)
    found.append(x.unsqueeze(0))
    every = torch.cat(found)
    assert threat.inside(every, x.expand(len(every), *x.shape)).all()
    return every


def assert_within(known: list[Interval], graph: BoundGraph, every: Tensor) -> None:
    for number, value in enumerate(graph.values(every)):
        low, high = known[number].low[0], known[number].high[0]
        name = graph.steps[number - 1].name if number else "the image"
        assert (low <= value).all(), name
        assert (value <= high).all(), name
        # Bounds that are wide beyond reason would hold for anything.
        assert low.isfinite().all(), name
        assert high.isfinite().all(), name


@pytest.mark.parametrize("threat", BALLS, ids=str)
@pytest.mark.parametrize("kind", NETS)
def test_every_layer_and_margin_is_within_its_bounds(kind: str, threat: Threat) -> None:
    model, x = net(kind), images()[:1]
    y = model(x).argmax(1)
    graph = TracedModel(model).lowered(x.shape[1:], torch.float64)
    # As certificates do: an image may be a little outside, where float32 rounds it.
    eps = torch.tensor([threat.eps + threat.geometry.slack(threat.eps)]).double()
    ball = InputBall(x=x.double(), eps=eps, norm=threat.norm)
    methods = [ibp_margins, crown_ibp_margins]
    # CROWN of residual nets takes long.
    tight = kind in ("strided", "mixed") or (kind.startswith("batch") and threat.norm == "Linf")
    methods += [crown_margins] * tight
    # The box around a ball of another norm is too wide to be of interest.
    kinks = RELU_TRANSFORMERS.values() if threat.norm == "Linf" else []
    methods += [partial(zonotope_margins, kink=kink) for kink in kinks]
    bounds = [method(graph, ball, y, SHAPE.classes, FLOAT32) for method in methods]
    known = [graph.intervals(ball, FLOAT32)]
    for kink in kinks:
        zonotopes, within = graph.zonotopes(ball, kink, FLOAT32)
        known += [within, [each.interval for each in zonotopes]]
    known += [graph.intervals(ball, FLOAT32, tighten=True)] * tight
    every = points(model, x[0], y[0], threat)
    assert len(every) > POINTS
    for intervals in known:
        assert_within(intervals, graph, every.double())
    logits = model(every)  # in float32, as the verifier sees it
    margins = logits[:, y].double() - logits
    for method, bound in zip(methods, bounds, strict=True):
        assert (bound <= margins).all(), method
        assert float(bound[0, y]) <= 1e-6


@pytest.mark.parametrize("kind", NETS)
def test_a_ball_of_radius_zero_is_the_model_itself(kind: str) -> None:
    model, x = net(kind), images()
    graph = TracedModel(model).lowered(x.shape[1:], torch.float64)
    *_, logits = graph.values(x.double())
    exact = model.double()(x.double())
    assert torch.allclose(logits, exact, rtol=0, atol=1e-8)  # float32 slopes
    nothing = InputBall(x=x.double(), eps=torch.zeros(EXAMPLES).double())
    interval = graph.intervals(nothing, FLOAT32)[graph.output]
    answers = net(kind)(x)  # the same in float32
    assert ((interval.low <= answers) & (answers <= interval.high)).all()
    assert (interval.high - interval.low < 0.02 * exact.abs().max()).all()


@pytest.mark.parametrize("kind", ["strided", "mixed", "batch norm and max-pooling"])
def test_bounds_are_tighter_the_more_they_cost(kind: str) -> None:
    model, x = net(kind), images()
    y = model(x).argmax(1)
    graph = TracedModel(model).lowered(x.shape[1:], torch.float64)
    ball = InputBall(x=x.double(), eps=torch.full((EXAMPLES,), 0.005).double())
    others = torch.arange(4) != y[:, None]
    boxes = zonotope_margins(graph, ball, y, 4, kink=RELU_TRANSFORMERS["box"])[others]
    ibp, mixed, crown = (
        method(graph, ball, y, 4)[others]
        for method in (ibp_margins, crown_ibp_margins, crown_margins)
    )
    assert (ibp < mixed).all()
    assert (ibp <= boxes + 1e-12).all()
    assert (mixed < crown + 1e-12).all()
    at = model(x)
    gap = (at.gather(1, y[:, None]) - at)[others]
    assert (crown < gap).all()
    assert (gap - crown < 0.5 * (gap - ibp)).all()


def test_a_smaller_ball_has_tighter_intervals() -> None:
    model, x = net("mixed"), images().double()
    graph = TracedModel(model).lowered(x.shape[1:], torch.float64)
    small, large = (
        graph.intervals(InputBall(x=x, eps=torch.full((EXAMPLES,), eps).double()))
        for eps in (0.01, 0.02)
    )
    for inner, outer in zip(small, large, strict=True):
        assert (outer.low <= inner.low).all()
        assert (inner.high <= outer.high).all()


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_examples_do_not_see_each_other(norm: str) -> None:
    """A batch of balls of different radii is bounded as each ball by itself."""
    model, x = net("batch norm and max-pooling"), images().double()
    y = model(x.float()).argmax(1)
    graph = TracedModel(model).lowered(x.shape[1:], torch.float64)
    eps = torch.tensor([0.003, 0.02]).double()
    together = InputBall(x=x, eps=eps, norm=norm)
    for method in (ibp_margins, crown_ibp_margins, crown_margins):
        every = method(graph, together, y, 4)
        for row in range(EXAMPLES):
            one = slice(row, row + 1)
            alone = InputBall(x=x[one], eps=eps[one], norm=norm)
            found = method(graph, alone, y[one], 4)
            assert torch.allclose(found, every[one], rtol=0, atol=1e-12)
