"""What is put around a model of somebody else, so that it takes images and returns logits."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustbench_cli.core.errors import UserError
from robustbench_cli.models._around import FittedModel
from robustbench_cli.models.class_map import matched_classes, read_class_map
from robustbench_cli.models.fitting import Fitting, fit_model
from robustbench_cli.models.normalizations import NORMALIZATIONS, ChannelStatistics
from robustbench_cli.models.reshaping import Reshaping

X = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@dataclass
class Output:
    logits: Tensor
    hidden: Tensor


class Net(nn.Module):
    """Logits of three classes, in any wrapping."""

    def __init__(self, wrap: Any = None, classes: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(192, classes)
        self.wrap = wrap

    def forward(self, x: Tensor) -> Any:
        z = self.layer(x.flatten(1))
        return self.wrap(z) if self.wrap else z


def fitted(model: nn.Module, classes: int | tuple[str, ...] = 3, **wanted: Any):
    names = classes if isinstance(classes, tuple) else tuple(map(str, range(classes)))
    return fit_model(model, Fitting(**wanted), X, names, two=len(names) == 2)


def test_nothing_is_put_around_a_plain_model():
    net = Net()
    found = fitted(net)
    assert found.around(net) is net
    assert (found.settings, found.notes) == ({}, ())


@pytest.mark.parametrize(
    ("wrap", "place"),
    [
        (lambda z: (z, z.new_zeros(4, 7)), "0"),
        (lambda z: [z.new_zeros(4, 2, 2), z], "1"),
        (lambda z: {"logits": z, "scores": z}, "logits"),
        (lambda z: {"out": z, "loss": z.sum()}, "out"),
        (lambda z: Output(z, z), "logits"),
    ],
)
def test_logits_are_found_where_it_is_clear_which_they_are(wrap, place):
    net = Net(wrap)
    found = fitted(net)
    assert found.settings == {"output": place}
    assert torch.equal(found.around(net)(X), Net()(X))


@pytest.mark.parametrize(
    ("wrap", "shown"),
    [
        (lambda z: (z, z), r"tuple with 0: \(4, 3\), 1: \(4, 3\).*out\[0\]\)$"),
        (lambda z: {"a": z, "b": z}, r"dict with 'a': .*out\['a'\]\)$"),
        (lambda z: "text", "the model returns str: which"),
    ],
)
def test_an_unclear_output_says_the_one_line(wrap, shown):
    with pytest.raises(UserError, match=shown) as caught:
        fitted(Net(wrap))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrap", [None, lambda z: z[:, 0], lambda z: (z,)])
def test_one_logit_becomes_two(wrap):
    net = Net(wrap, classes=1)
    found = fitted(net, 2)
    logits = found.around(net)(X)
    z = Net(classes=1)(X)
    assert torch.equal(logits, torch.cat([torch.zeros_like(z), z], 1))
    assert found.settings["logits"] == "0 and z"
    assert "taken as the two logits 0 and z" in " ".join(found.notes)
    # The loss and the decision are those of one logit: p = sigmoid(z), class 1 where z > 0.
    y = torch.tensor([0, 1, 0, 1])
    ours = nn.functional.cross_entropy(logits, y)
    theirs = nn.functional.binary_cross_entropy_with_logits(z[:, 0], y.float())
    assert torch.allclose(ours, theirs)


def test_a_probability_is_noticed():
    found = fitted(Net(torch.sigmoid, classes=1), 2)
    assert any("torch.logit" in note for note in found.notes)
    assert fitted(Net(classes=1), 3).settings == {}  # not for more classes than two


def test_normalisation_and_size_are_parts_of_the_model():
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    pair = NORMALIZATIONS["imagenet"]
    found = fitted(net, normalization=pair, reshaping=Reshaping(size=(16, 16)))
    model = found.around(net)
    assert isinstance(model, FittedModel)
    mean, std = (torch.tensor(part).view(3, 1, 1) for part in pair)
    larger = nn.functional.interpolate(X, (16, 16), mode="bilinear", antialias=True)
    assert torch.allclose(model(X), net((larger - mean) / std), atol=1e-5)
    assert found.settings["resize"] == [16, 16]
    assert found.settings["mean"] == list(pair.mean)
    assert "8x8 are resized to 16x16" in found.notes[0]
    x = X.clone().requires_grad_()
    model(x).sum().backward()
    assert (x.grad != 0).all()
    assert "resize" not in fitted(net, reshaping=Reshaping(size=(8, 8))).settings


def test_a_mean_for_other_channels_is_refused():
    with pytest.raises(UserError, match="--mean has 2 values, the images have 3 channels"):
        fitted(Net(), normalization=ChannelStatistics((0.5, 0.5), (1.0, 1.0)))


class Strict(nn.Module):
    """Takes images of 16 x 16 only."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[2] == 16, "16 pixels or none"
        return x.mean((2, 3))


def test_another_size_is_told():
    with pytest.raises(UserError, match=r"made for 16x16: add --resize 16$"):
        fitted(Strict(), made_for=(16, 16))


def test_bfloat16_weights_work_in_float32():
    net = Net().bfloat16()
    found = fitted(net)
    assert found.settings == {"dtype": "float32"}
    assert found.around(Net().bfloat16())(X).dtype == torch.float32
    own = fitted(Net(lambda z: z.bfloat16()))
    assert own.around(Net(lambda z: z.bfloat16()))(X).dtype == torch.float32


NAMES = ("tench, Tinca tinca", "tabby cat", "golden_retriever", "Pug")


@pytest.mark.parametrize(
    ("given", "classes", "groups"),
    [
        (None, ("pug", "tench"), ((3,), (0,))),
        (None, ("golden retriever", "Tabby_Cat"), ((2,), (1,))),
        (None, ("pug", "wolf"), ()),
        (None, ("0", "1"), ()),
        (None, ("tench", "pug", "tabby cat", "golden retriever"), ((0,), (3,), (1,), (2,))),
        (None, ("tench", "tabby cat", "golden retriever", "pug"), ()),
        (None, ("tench", "pug", "tabby cat", "wolf"), ()),
        ([3, 0], ("a", "b"), ((3,), (0,))),
        (["pug", "tench"], ("a", "b"), ((3,), (0,))),
        ({"dog": [2, "Pug"], "cat": 1}, ("cat", "dog"), ((1,), (2, 3))),
        ({"0": 1, "1": 2}, ("cat", "dog"), ((1,), (2,))),
        ([3, 2, 1, 0], ("a", "b", "c", "d"), ((3,), (2,), (1,), (0,))),
    ],
)
def test_classes_are_matched(given, classes, groups):
    assert matched_classes(given, NAMES, 4, classes) == groups


@pytest.mark.parametrize(
    ("given", "names", "message"),
    [
        ([1], NAMES, "1 entries, the data has 2 classes: cat, dog"),
        ({"cat": 1}, NAMES, "no class for 'dog'"),
        ({"cat": 1, "dog": 2, "cow": 3}, NAMES, "no class 'cow'; its classes: cat, dog"),
        ({"cat": 1, "Dgo": 2}, NAMES, "the data has no class 'Dgo'; did you mean 'dog'"),
        ({"cat": 1, "cats": 3, "og": 2}, NAMES, "the data has no class 'cats'; known: dog"),
        ([1, 4], NAMES, "classes 0 to 3, got 4"),
        ([1, "pugg"], NAMES, "no class 'pugg'; known: Pug"),
        ([1, "pug"], (), "have no names here: give numbers"),
        ([1, 1], NAMES, "class 1 of the model is used twice"),
    ],
)
def test_a_wrong_map_is_refused(given, names, message):
    with pytest.raises(UserError, match=message):
        matched_classes(given, names, 4, ("cat", "dog"))


def test_groups_of_logits_take_the_largest():
    net = Net(classes=4)
    found = fit_model(
        net, Fitting(class_map={"cat": 1, "dog": [2, 3]}), X, ("cat", "dog"), two=True
    )
    z = net(X)
    expected = torch.stack([z[:, 1], z[:, 2:].amax(1)], 1)
    assert torch.equal(found.around(net)(X), expected)
    assert found.settings == {"classes": [1, [2, 3]]}
    assert found.notes == ("of the model's 4 classes the data's 2 are compared, as --classes says",)


def test_a_map_comes_from_a_file_or_is_written_out(tmp_path: Path):
    (tmp_path / "map.json").write_text(json.dumps({"cat": 3, "dog": [1, "pug"]}))
    assert read_class_map(str(tmp_path / "map.json")) == {"cat": 3, "dog": [1, "pug"]}
    assert read_class_map("3, pug") == ["3", "pug"]
    for text, message in (("{", "not valid JSON"), ('{"a": 1.5}', "expected an object")):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(UserError, match=message):
            read_class_map(str(tmp_path / "bad.json"))
    with pytest.raises(UserError, match=r"none.json: No such file"):
        read_class_map(str(tmp_path / "none.json"))
