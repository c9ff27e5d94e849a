"""The contract of every registered architecture."""

import ast
import dataclasses
import inspect

import pytest
import torch
from torch import Tensor, nn

from robustbench_cli.core.registry import Spec
from robustbench_cli.models import MODELS, Classifier, ModelConfig, Normalize, Shape

SHAPE = Shape(3, 32, 32, 7, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))

SMALL = {
    "torchvision": {"arch": "shufflenet_v2_x0_5"},
    "wrn": {"depth": 10, "width": 1},
    "resnet-18": {"width": 8},
    "preact-resnet-18": {"width": 8},
    "resnet-110": {"blocks": 1},
    "cifar-resnet": {"depth": 8},
    "digits-cnn": {"width": 8},
    "vgg-16": {"width": 8, "hidden": 64},
    "deep-pursuit": {"width": 4, "iterations": 3},
    "layered-pursuit": {"width": 4, "iterations": 3},
}
"""Parameters that a model cannot do without, or that make it quick; others are built as is."""


def config(name: str, **extra: object) -> ModelConfig:
    return MODELS.build(Spec(name, {**SMALL.get(name, {}), **extra}))


@pytest.fixture(params=MODELS.names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def x() -> Tensor:
    return torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def wake(model: Classifier) -> Classifier:
    """Give a head that starts at zero random weights, so that logits depend on the image."""
    torch.manual_seed(1)
    for weight in model.head.parameters():
        nn.init.normal_(weight)
    return model


def test_logits_have_a_row_for_each_image(name: str, x: Tensor) -> None:
    model = config(name).build(SHAPE)
    assert model.training
    assert isinstance(model.head, nn.Linear)
    logits = model(x)
    assert logits.shape == (4, 7)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


def test_the_head_reads_the_features(name: str, x: Tensor) -> None:
    model = wake(config(name).build(SHAPE)).eval()
    with torch.no_grad():
        features = model.features(x)
        assert features.shape == (4, model.head.in_features)
        assert torch.equal(model.head(features), model(x))


def test_images_are_left_as_they_are(name: str, x: Tensor) -> None:
    before = x.clone()
    config(name).build(SHAPE)(x)
    assert torch.equal(x, before)


def test_the_normaliser_is_inside(name: str, x: Tensor) -> None:
    inside = wake(config(name, normalize=True).build(SHAPE)).eval()
    outside = config(name, normalize=False).build(SHAPE).eval()
    assert isinstance(inside.normalize, Normalize)
    assert isinstance(outside.normalize, nn.Identity)
    state = inside.state_dict()
    outside.load_state_dict({k: v for k, v in state.items() if not k.startswith("normalize.")})
    mean = torch.tensor(SHAPE.mean).view(3, 1, 1)
    std = torch.tensor(SHAPE.std).view(3, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(inside(x), outside((x - mean) / std))
        assert not torch.allclose(inside(x), outside(x))


def test_backward_reaches_every_parameter_and_the_image(name: str, x: Tensor) -> None:
    model = wake(config(name).build(SHAPE))
    x = x.requires_grad_()
    nn.functional.cross_entropy(model(x), torch.tensor([0, 1, 2, 3])).backward()
    lost = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert lost == []
    assert x.grad is not None
    assert x.grad.flatten(1).any(1).all()


def test_one_seed_gives_one_network(name: str) -> None:
    made = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        made.append(config(name).build(SHAPE).state_dict())
    first, again, other = made
    assert first.keys() == again.keys()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_a_record_describes_it_in_full(name: str) -> None:
    made = config(name)
    stored = MODELS.describe(made)
    assert stored.pop("name") == name
    assert MODELS.build(Spec(name, stored)) == made


def test_it_is_documented(name: str) -> None:
    cls = MODELS.entry(name).cls
    module = inspect.getmodule(cls)
    assert module is not None
    assert "http" in (module.__doc__ or "")
    assert inspect.getdoc(cls)
    body = ast.parse(inspect.getsource(cls)).body[0].body
    own = {f.name for f in dataclasses.fields(cls)}
    for field, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign) and field.target.id in own:
            assert isinstance(after, ast.Expr), f"{field.target.id} has no docstring"
