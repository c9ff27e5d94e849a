"""Cutout: one black square inside each image, at a position keyed by the example."""

from dataclasses import replace

import pytest
import torch

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.defenses import DEFENSES
from robustbench_cli.defenses._step import Setting, Step
from robustbench_cli.models import Shape


def cut(x, ids, length=None):
    step = Step(
        model=None,
        x=x,
        y=torch.zeros(len(x), dtype=torch.long),
        threat=Threat("Linf", 0.1),
        noise=Noise(0, ids),
    )
    part = DEFENSES.build(Spec("cutout", {"length": length}))
    return part.inputs(step).x


@pytest.mark.parametrize(("height", "width", "length"), [(32, 32, 14), (9, 12, 4), (5, 7, 5)])
def test_one_square_is_black_in_every_channel_and_the_rest_is_unchanged(height, width, length):
    x = torch.rand(300, 3, height, width) + 1  # nothing is black
    out = cut(x, torch.arange(300), length)
    black = out == 0
    assert (black.flatten(1).sum(1) == 3 * length**2).all()
    assert torch.equal(out[~black], x[~black])
    rows, columns = black.any((1, 3)), black.any((1, 2))
    for axis, side in ((rows, height), (columns, width)):
        assert (axis.sum(1) == length).all()  # whole, and in one piece:
        first = axis.float().argmax(1)
        assert axis.float().cumsum(1).gather(1, (first + length - 1)[:, None]).eq(length).all()
        assert {*first.tolist()} == {*range(side - length + 1)}  # every place comes up


def test_the_default_is_14_pixels_on_cifar():
    sizes = {32: 14, 28: 12, 8: 3}
    for side, length in sizes.items():
        out = cut(torch.ones(1, 1, side, side), torch.arange(1))
        assert int((out == 0).sum()) == length**2


def test_the_square_is_keyed_by_the_example():
    x = torch.rand(10, 1, 16, 16) + 1
    ids = torch.arange(10)
    order = torch.randperm(10)
    assert torch.equal(cut(x[order], ids[order]), cut(x, ids)[order])
    assert not torch.equal(cut(x, ids) == 0, cut(x, ids + 10) == 0)


def test_a_square_that_does_not_fit_is_refused_before_training(model):
    shape = Shape(1, 8, 9, 4, (0.0,), (1.0,))
    setting = Setting(model=model, shape=shape, batch_size=8, fresh=lambda: model)
    part = DEFENSES.build(Spec("cutout", {"length": 9}))
    with pytest.raises(UserError, match="cutout:length=9: the images have 8 pixels a side"):
        part.auxiliary(setting)
    assert replace(part, length=8).auxiliary(setting) is None
