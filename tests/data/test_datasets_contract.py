"""The contract of every registered data set."""

import ast
import dataclasses
import inspect
from pathlib import Path

import pytest
import torch

from robustbench_cli.core.registry import Spec
from robustbench_cli.data import DATASETS, Dataset, Split
from robustbench_cli.data.shape import shape_of
from robustbench_cli.models import MODELS, Shape


@pytest.fixture(params=DATASETS.names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def config(name: str) -> Dataset:
    position = DATASETS.entry(name).positional
    return DATASETS.build(Spec(name, {position: "somewhere"} if position else {}))


def test_it_is_documented(name: str) -> None:
    cls = DATASETS.entry(name).cls
    module = inspect.getmodule(cls)
    assert module is not None
    assert "http" in (module.__doc__ or "")
    assert inspect.getdoc(cls) not in (None, inspect.getdoc(Dataset))
    body = ast.parse(inspect.getsource(cls)).body[0].body
    own = {f.name for f in dataclasses.fields(cls)}
    for field, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign) and field.target.id in own:
            assert isinstance(after, ast.Expr), f"{field.target.id} has no docstring"


def test_it_has_a_radius_for_both_norms(name: str) -> None:
    eps = config(name).eps
    assert 0 < eps["Linf"] < 1
    assert eps["L2"] > eps["Linf"]


def test_it_names_a_model(name: str) -> None:
    model = config(name).defaults["model"]["name"]
    assert isinstance(MODELS.build(Spec.parse(model)), MODELS.entry(model).cls)


def test_its_statistics_go_together(name: str) -> None:
    made = config(name)
    assert (made.mean is None) == (made.std is None)
    if made.mean is not None and made.std is not None:
        assert len(made.mean) == len(made.std)
        assert min(made.std) > 0


def test_a_record_describes_it_in_full(name: str) -> None:
    made = config(name)
    stored = DATASETS.describe(made)
    assert stored.pop("name") == name
    assert DATASETS.build(Spec(name, stored)) == made


def test_augmentation_is_a_parameter(name: str) -> None:
    position = DATASETS.entry(name).positional
    given = {position: "somewhere"} if position else {}
    assert DATASETS.build(Spec(name, {**given, "augment": "crop", "pad": "2"})).pad == 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unmeasured(Dataset):
    def load(self, split: object, root: Path) -> Split:
        raise NotImplementedError


def split(x: torch.Tensor) -> Split:
    return Split(x, torch.zeros(len(x), dtype=torch.int64), ("a", "b", "c"))


def test_unpublished_statistics_are_measured() -> None:
    x = torch.randint(0, 256, (50, 3, 6, 7), generator=torch.Generator().manual_seed(0))
    x = (x * torch.tensor([1.0, 0.5, 0.1])[:, None, None]).to(torch.uint8)
    shape = shape_of(Unmeasured(), split(x))
    pixels = x.double() / 255
    mean = tuple(round(v, 4) for v in pixels.mean((0, 2, 3)).tolist())
    std = tuple(round(v, 4) for v in pixels.std((0, 2, 3), correction=0).tolist())
    assert shape == Shape(3, 6, 7, 3, mean, std)


def test_a_constant_channel_can_be_normalised() -> None:
    shape = shape_of(Unmeasured(), split(torch.full((4, 1, 2, 2), 51, dtype=torch.uint8)))
    assert (shape.mean, shape.std) == ((0.2,), (0.001,))


def test_published_statistics_are_kept() -> None:
    cifar = DATASETS.build(Spec("cifar10"))
    shape = shape_of(cifar, split(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)))
    assert (shape.mean, shape.std) == (cifar.mean, cifar.std)
