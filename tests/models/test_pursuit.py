"""Deep and layered pursuit: cases worked by hand, and what holds of any solver of the problem."""

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robustbench_cli.core.registry import Spec
from robustbench_cli.models import MODELS, Classifier, Shape
from robustbench_cli.models._pursuit import PursuitBody, TiedConv, TiedLinear, squared_norm
from robustbench_cli.models.deep_pursuit import DeepPursuitBody
from robustbench_cli.models.layered_pursuit import LayeredPursuitBody
from robustbench_cli.models.unrolled import unrolled_iterations, with_iterations

SHAPES = {
    "digits": Shape(1, 8, 8, 10, (0.3,), (0.4,)),
    "mnist": Shape(1, 28, 28, 10, (0.13,), (0.31,)),
    "cifar": Shape(3, 32, 32, 10, (0.5,) * 3, (0.2,) * 3),
}
KINDS = {"deep-pursuit": DeepPursuitBody, "layered-pursuit": LayeredPursuitBody}
RESIDUAL = "blocks=1,residual=true"


def dense(*layers: tuple[list[list[float]], float]) -> list[TiedLinear]:
    """Layers in float64 from the matrix D^T of each and its threshold."""
    made = []
    for rows, threshold in layers:
        matrix = torch.tensor(rows, dtype=torch.float64)
        layer = TiedLinear(matrix.shape[1], matrix.shape[0]).double()
        layer.weight = nn.Parameter(matrix)
        nn.init.constant_(layer.bias, threshold)
        made.append(layer)
    return made


def scalars(iterations: int, body: type[PursuitBody] = DeepPursuitBody, **more: bool):
    """The two scalar layers d = (1, 2), b = (0.1, 0.05)."""
    layers = dense(([[1.0]], 0.1), ([[2.0]], 0.05))
    return body(layers, [None, None], iterations=iterations, **more)


ONE = torch.ones(1, 1, dtype=torch.float64)


def built(text: str, data: str = "digits") -> Classifier:
    torch.manual_seed(0)
    return MODELS.build(Spec.parse(text)).build(SHAPES[data]).double().eval()


def images(data: str = "digits", n: int = 3) -> torch.Tensor:
    shape = SHAPES[data]
    size = (n, shape.channels, shape.height, shape.width)
    return torch.rand(size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize(
    ("iterations", "codes"),
    [
        (0, (0.9, 1.75)),
        (1, (1.396556, 0.747339)),
        (10, (1.001150, 0.502965)),
        (300, (0.875, 0.425)),
    ],
)
def test_two_scalar_layers(iterations, codes):
    found = torch.cat(scalars(iterations).solve(ONE)).flatten()
    torch.testing.assert_close(found, torch.tensor(codes).double(), atol=1e-6, rtol=0)


def test_the_norm_of_two_scalar_layers():
    body = scalars(1)
    assert body.lipschitz().item() == pytest.approx(5.236068, abs=1e-6)
    assert body.lipschitz().item() == pytest.approx(3 + 5**0.5, abs=1e-9)


def test_layered_pursuit_of_two_scalar_layers():
    # 0.5 (1 - z)^2 + 0.1 z is least at 0.9, then 0.5 (0.9 - 2 z)^2 + 0.05 z at (1.8 - 0.05) / 4.
    found = torch.cat(scalars(200, LayeredPursuitBody).solve(ONE)).flatten()
    torch.testing.assert_close(found, torch.tensor([0.9, 0.4375]).double())


@pytest.mark.parametrize("more", [{"sequential": True}, {"accelerated": True}])
def test_other_ways_of_stepping_have_the_same_fixed_point(more):
    found = torch.cat(scalars(300, **more).solve(ONE)).flatten()
    torch.testing.assert_close(found, torch.tensor([0.875, 0.425]).double())
    assert not torch.equal(scalars(1).solve(ONE)[1], scalars(3, **more).solve(ONE)[1])


def test_a_sequential_step_uses_what_the_layers_below_have_become():
    first = scalars(1).solve(ONE)[0]
    size, z = 1 / scalars(1).lipschitz(), torch.tensor(1.75).double()
    second = z - size * (2 * (2 * z - first) + 0.05)
    torch.testing.assert_close(scalars(1, sequential=True).solve(ONE)[1], second)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("iterations", [1, 7])
def test_one_orthonormal_layer_is_the_feed_forward_one(kind, iterations):
    turned, _ = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))
    x = torch.randn(5, 6, dtype=torch.float64)
    body = KINDS[kind](dense((turned.tolist(), 0.2)), [None], iterations=iterations)
    (codes,) = body.solve(x)
    torch.testing.assert_close(codes, F.relu(x @ turned.t() - 0.2))


@pytest.mark.parametrize("more", [{}, {"accelerated": True}])
def test_with_a_single_layer_both_are_the_same(more):
    layers = dense((torch.randn(9, 5).tolist(), 0.05))
    x = torch.randn(4, 5, dtype=torch.float64)
    deep, layered = (body(layers, [None], iterations=6, **more).solve(x) for body in KINDS.values())
    torch.testing.assert_close(deep, layered)
    start = DeepPursuitBody(layers, [None], iterations=0).solve(x)
    assert not torch.allclose(deep[0], start[0])


@pytest.mark.parametrize("kind", KINDS)
def test_without_iterations_it_is_the_relu_net(kind):
    model = built(f"{kind}:iterations=0,width=4,stages=3")
    z = model.normalize(images())
    for layer, stride in zip(model.body.layers, (1, 2, 2), strict=True):
        z = F.relu(F.conv2d(z, layer.weight, -layer.bias.abs(), stride, 1))
    torch.testing.assert_close(model(images()), model.head(z.flatten(1)))


@pytest.mark.parametrize("kind", KINDS)
def test_without_iterations_and_with_skips_it_is_the_residual_net(kind):
    model = built(f"{kind}:iterations=0,width=4,stages=1,{RESIDUAL}")
    first, a, b = model.body.layers

    def conv(layer, z):
        return F.conv2d(z, layer.weight, -layer.bias.abs(), 1, 1)

    z = F.relu(conv(first, model.normalize(images())))
    z = F.relu(z + conv(b, F.relu(conv(a, z))))
    torch.testing.assert_close(model(images()), model.head(z.flatten(1)))


def matrix_of(body, x, codes):
    """The global operator as a matrix, column by column."""
    shapes = [z.shape[1:] for z in codes]
    size = sum(shape.numel() for shape in shapes)
    parts = torch.eye(size, dtype=torch.float64).split([s.numel() for s in shapes], 1)
    units = tuple(part.reshape(-1, *s) for part, s in zip(parts, shapes, strict=True))
    zero = torch.zeros(size, *x.shape[1:], dtype=torch.float64)
    return torch.cat([-r.flatten(1) for r in body.residuals(zero, units)], 1).t()


@pytest.mark.parametrize("options", ["stages=3", f"stages=2,{RESIDUAL}"])
def test_norm_and_adjoint_are_those_of_the_matrix(options):
    model = built(f"deep-pursuit:width=2,power_iterations=400,{options}")
    body, x = model.body, images()
    for layer in body.layers:
        nn.init.normal_(layer.weight)
    codes = body.feed_forward(x)
    matrix = matrix_of(body, x, codes)
    norm = torch.linalg.matrix_norm(matrix, 2) ** 2
    torch.testing.assert_close(body.lipschitz(), norm, rtol=1e-4, atol=0)
    residuals = body.residuals(x, codes)
    found = torch.cat([each.flatten(1) for each in body.adjoint(residuals)], 1)
    stacked = torch.cat([each.flatten(1) for each in residuals], 1)
    torch.testing.assert_close(found, stacked @ matrix)


def test_power_iteration_is_from_below_and_needs_few_steps():
    matrix = torch.randn(40, 30, dtype=torch.float64)
    start = (torch.ones(1, 30, dtype=torch.float64),)
    norm = torch.linalg.matrix_norm(matrix, 2).item() ** 2
    found = [
        squared_norm(lambda z: (z[0] @ matrix.t() @ matrix,), start, steps).item()
        for steps in (1, 5, 30, 300)
    ]
    assert found == sorted(found)
    assert found[2] > 0.97 * norm
    assert found[3] == pytest.approx(norm, rel=1e-5)


@pytest.mark.parametrize("options", ["stages=2", RESIDUAL, "units=20-30", "sequential=true"])
def test_the_objective_never_rises(options):
    model = built(f"deep-pursuit:width=3,{options}")
    x = model.normalize(images())
    x = x.flatten(1) if "units" in options else x
    values = []
    for iterations in range(0, 12):
        model.body.iterations = iterations
        values.append(model.body.objective(x, model.body.solve(x)))
    for before, after in pairwise(values):
        assert (after <= before + 1e-9).all()
    assert (values[-1] < values[0]).all()


def test_the_step_is_the_proximal_gradient_of_the_objective():
    model = built(f"deep-pursuit:width=3,iterations=1,{RESIDUAL}")
    body, x = model.body, model.normalize(images())
    codes = [z.detach().requires_grad_() for z in body.feed_forward(x)]
    slopes = torch.autograd.grad(body.objective(x, tuple(codes)).sum(), codes)
    size = 1 / body.lipschitz()
    for after, z, slope in zip(body.solve(x), codes, slopes, strict=True):
        torch.testing.assert_close(after, F.relu(z - size * slope))


def test_acceleration_gets_lower_in_as_many_steps():
    def reached(accelerated):
        model = built(f"deep-pursuit:width=3,iterations=40,accelerated={accelerated}")
        x = model.normalize(images())
        return model.body.objective(x, model.body.solve(x))

    assert (reached(True) < reached(False)).all()


def test_the_transposed_convolution_is_the_adjoint():
    for side in (7, 8):
        for stride in (1, 2):
            layer = TiedConv((3, side, side + 1), 5, stride).double()
            x, z = torch.randn(2, 3, side, side + 1).double(), torch.randn(2, *layer.code_shape)
            down, up = layer.analysis(x), layer.synthesis(z.double())
            assert down.shape == z.shape
            assert up.shape == x.shape
            torch.testing.assert_close((down * z).sum(), (x * up).sum())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("data", SHAPES)
@pytest.mark.parametrize("options", ["width=4", f"width=2,{RESIDUAL}", "units=16-8"])
def test_an_answer_does_not_depend_on_the_batch(kind, data, options):
    model = built(f"{kind}:iterations=2,{options}", data)
    x = images(data)
    with torch.no_grad():
        alone = torch.cat([model(each[None]) for each in x])
        torch.testing.assert_close(model(x), alone)
        assert torch.equal(model(x), model(x))


@pytest.mark.parametrize("kind", KINDS)
def test_other_iterations_of_the_same_weights(kind):
    model = built(f"{kind}:width=3,iterations=5")
    around = nn.Sequential(nn.Identity(), model)
    assert unrolled_iterations(around) == 5
    assert unrolled_iterations(nn.Linear(2, 2)) == 0
    longer = with_iterations(around, 20)
    assert unrolled_iterations(longer) == 20
    assert unrolled_iterations(around) == 5
    x = images()
    assert torch.equal(longer(x), built(f"{kind}:width=3,iterations=20")(x))
    assert not torch.allclose(longer(x), around(x))


def test_thresholds_are_never_negative():
    body = scalars(3)
    before = body.solve(ONE)
    for layer in body.layers:
        layer.bias.data.neg_()
        assert (layer.threshold >= 0).all()
    torch.testing.assert_close(body.solve(ONE), before)
