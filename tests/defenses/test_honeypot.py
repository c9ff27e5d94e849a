"""Honeypot training: which images carry a trapdoor, and what they are taught to be."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.core.trapdoors import Trapdoors
from robustbench_cli.defenses import DEFENSES
from robustbench_cli.defenses._step import Passes, Setting, Step
from robustbench_cli.models import Shape


def setting(seed=0, side=8):
    shape = Shape(1, side, side, 4, (0.2,), (0.7,))
    return Setting(model=None, shape=shape, batch_size=6, fresh=lambda: None, seed=seed)


def built(**params):
    return DEFENSES.build(Spec("honeypot", params))


def step_of(part, ids, epoch=0, model=None):
    draw = torch.Generator().manual_seed(0)
    x, y = torch.rand(3000, 1, 8, 8, generator=draw), torch.arange(3000) % 4
    return Step(
        model=model,
        x=x[ids],
        y=y[ids],
        classes=4,
        threat=Threat("Linf", 0.1),
        noise=Noise(0, ids, f"epoch {epoch}"),
        auxiliaries={"Honeypot": part.auxiliary(setting())},
    )


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_the_share_that_carries_one_is_labelled_by_it(share):
    part = built(inject=share, size=2)
    step = step_of(part, torch.arange(3000))
    made = part.crafted(step)
    trapdoors = Trapdoors.kept_in(step.auxiliaries["Honeypot"].state_dict())
    changed = (made["trained"] != step.x).flatten(1).any(1)
    assert abs(float(changed.float().mean()) - share) < 0.03
    expected = trapdoors.put_on(step.x, made["labels"])
    assert torch.equal(made["trained"][changed], expected[changed])
    assert torch.equal(made["labels"][~changed], step.y[~changed])
    parts = torch.bincount(made["labels"][changed], minlength=4) / changed.sum()
    assert ((parts > 0.2) & (parts < 0.3)).all()


def test_the_choice_belongs_to_the_example_and_the_epoch():
    part, some = built(), torch.tensor([7, 2900, 13])
    whole = part.crafted(step_of(part, torch.arange(3000)))
    found = part.crafted(step_of(part, some))
    assert all(torch.equal(found[k], whole[k][some]) for k in found)
    later = part.crafted(step_of(part, torch.arange(3000), epoch=1))
    assert (later["labels"] != whole["labels"]).float().mean() > 0.2


def test_trapdoors_are_of_the_run_s_seed():
    same, again, other = (built().auxiliary(setting(seed)).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(same[k], again[k]) for k in same)
    assert not any(torch.equal(same[k], other[k]) for k in same)


def test_the_loss_is_the_criterion_on_what_was_made(model, batch):
    x, _ = batch
    part = built()
    step = step_of(part, torch.arange(len(x)), model=model)
    step = replace(
        step, x=x, criterion=lambda logits, y: 2 * F.cross_entropy(logits, y, reduction="none")
    )
    made = part.crafted(step)
    found = part.loss(step, Passes(model, made))
    by_hand = -model(made["trained"]).log_softmax(1)[torch.arange(len(x)), made["labels"]]
    torch.testing.assert_close(found, 2 * by_hand)


def test_the_defaults_are_those_of_the_official_code():
    part = built()
    assert (part.clusters, part.size, part.mask, part.inject) == (7, 3, 0.1, 0.5)


def test_squares_larger_than_the_images_are_refused():
    with pytest.raises(UserError, match="honeypot:size=9: the images have 8 x 8 pixels"):
        built(size=9).auxiliary(setting())
