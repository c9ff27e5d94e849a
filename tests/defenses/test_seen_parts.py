"""Training on parts of images: what is seen, and how a net is shown what is hidden."""

from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.threat import Threat
from robustbench_cli.defenses import Recipe, parse
from robustbench_cli.defenses._step import Step
from robustbench_cli.models.masked_input import HIDDEN, masked_input

TEXTS = ["ablation-training:keep=20", "band-training:width=3", "band-training:piece=block,width=3"]
AREAS = dict(zip(TEXTS, [20, 24, 9], strict=True))


def step_of(net, batch):
    x, y = batch
    noise = Noise(0, torch.arange(len(x)))
    return Step(model=net, x=x, y=y, classes=4, threat=Threat("L2", 1.0), noise=noise)


@pytest.mark.parametrize("text", TEXTS)
def test_the_net_is_shown_the_parts_that_are_seen_as_pairs(text, network, batch):
    recipe = Recipe.build(parse(text))
    net = network(recipe).eval()
    step = step_of(net, batch)
    masked = recipe.objective.crafted(step)["masked"]
    seen = masked != HIDDEN
    assert (seen.flatten(1).sum(1) == AREAS[text]).all()
    assert len({tuple(each.flatten().tolist()) for each in seen}) > 1  # each image has its own
    assert torch.equal(masked[seen], step.x[seen])
    shown = []
    net.normalize.then.register_forward_hook(lambda _, given, __: shown.append(given[0]))
    with ExitStack() as moved:
        loss = recipe.backward(step, moved).loss
    (pairs,) = shown
    assert torch.equal(pairs, torch.cat([step.x * seen, (1 - step.x) * seen], 1))
    torch.testing.assert_close(loss, F.cross_entropy(net(masked), step.y))


def test_mean_encoding_fills_in_the_mean_of_the_training_images(network, batch):
    recipe = Recipe.build(parse("ablation-training:keep=9,encoding=mean"))
    net = network(recipe)
    step = step_of(net, batch)
    masked = recipe.objective.crafted(step)["masked"]
    hidden = masked != step.x
    assert (hidden.flatten(1).sum(1) == 64 - 9).all()
    assert masked[hidden].unique().tolist() == pytest.approx([0.2], abs=1e-6)
    assert next(net.body.parameters()).shape[1] == 1  # no second channel


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_seen_does_not_depend_on_the_batch_but_on_the_epoch(text, network, batch):
    recipe = Recipe.build(parse(text))
    step = step_of(network(recipe), batch)
    whole = recipe.objective.crafted(step)["masked"]
    rows = torch.tensor([4, 1])
    part = replace(step, x=step.x[rows], y=step.y[rows], noise=step.noise.only(rows))
    assert torch.equal(recipe.objective.crafted(part)["masked"], whole[rows])
    later = replace(step, noise=step.noise.fork(1))
    assert not torch.equal(recipe.objective.crafted(later)["masked"], whole)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ablation-training:keep=65", "keep=65: images have 64 pixels"),
        ("band-training:width=9", "width=9: images have 8 pixels a side"),
    ],
)
def test_more_than_there_is_cannot_be_seen(text, message, network):
    with pytest.raises(UserError, match=message):
        network(Recipe.build(parse(text)))


def test_the_net_says_what_it_was_trained_on(network):
    told = [masked_input(network(Recipe.build(parse(text)))).trained_on for text in TEXTS]
    assert told == ["20 pixels", "columns of width 3 pixels", "blocks of 3 x 3 pixels"]
    assert masked_input(network(Recipe.build(parse("standard")))) is None
