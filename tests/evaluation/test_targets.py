"""The class that each example is to be made into, and the verifier that goes by it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.eval_context import EvalContext
from robustbench_cli.evaluation.search_model import exact_search_model
from robustbench_cli.evaluation.targets import LEFT_OUT, check_target, chosen_targets, towards
from robustbench_cli.evaluation.tensors import Tensors
from robustbench_cli.evaluation.verifier import Verifier
from robustbench_cli.models.rejecting import ModelWithRejectClass

CLASSES = 5


class Spread(nn.Module):
    """Logits are the first pixels of an image."""

    def __init__(self, logits=CLASSES):
        super().__init__()
        self.logits = logits

    def forward(self, x):
        return x.flatten(1)[:, : self.logits]


@pytest.fixture
def context():
    x, y = torch.rand(400, 1, 4, 4), torch.randint(CLASSES, (400,))
    model = Spread()
    return EvalContext(
        data=Tensors(x, y),
        threat=Threat("Linf", 0.1),
        verifier=Verifier(model),
        search_model=exact_search_model(model),
        noise=Noise(0, torch.arange(400)),
        slots=64,
    )


def chosen(rule, context, standing=None):
    standing = np.ones(len(context.data.y), bool) if standing is None else standing
    return chosen_targets(rule, context, standing, CLASSES)


def test_a_class_for_all_leaves_its_own_images_out(context):
    found, y = chosen(3, context), context.data.y.numpy()
    assert (found[y == 3] == LEFT_OUT).all()
    assert (found[y != 3] == 3).all()


def test_the_next_class_goes_round(context):
    assert np.array_equal(chosen("next", context), (context.data.y.numpy() + 1) % CLASSES)


def test_the_least_likely_class_is_that_of_the_clean_image(context):
    lowest = Spread()(context.data.x).argmin(1).numpy()
    y = context.data.y.numpy()
    assert np.array_equal(chosen("least-likely", context), np.where(lowest == y, LEFT_OUT, lowest))


def test_random_targets_are_wrong_evenly_spread_and_the_example_s_own(context):
    found, y = chosen("random", context), context.data.y.numpy()
    assert not (found == y).any()
    away = (found - y) % CLASSES
    counts = np.bincount(away, minlength=CLASSES)[1:]
    assert counts.min() > 60  # of 400 examples, 100 for each of the four other classes
    some = np.zeros(400, bool)
    some[7::50] = True
    few = chosen("random", context, some)
    assert np.array_equal(few[some], found[some])
    assert (few[~some] == LEFT_OUT).all()
    other = replace(context, noise=Noise(1, torch.arange(400)))
    assert (chosen("random", other) != found).any()


def test_a_class_that_is_not_there_is_refused():
    with pytest.raises(UserError, match="from 0 to 4"):
        check_target(5, CLASSES)


def test_a_randomised_model_has_no_least_likely_class(context):
    random = replace(context, verifier=replace(context.verifier, random=True))
    with pytest.raises(UserError, match="randomised"):
        chosen("least-likely", random)


@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize("rejects", [False, True])
def test_the_verifier_goes_by_the_target_alone(random, rejects):
    """Another wrong class is no success, and neither is a rejection."""
    model = ModelWithRejectClass(Spread(CLASSES + 1), CLASSES, CLASSES) if rejects else Spread()
    x = torch.zeros(4, 1, 4, 4)
    x[0, 0, 0, 0] = x[1, 0, 0, 3] = x[2, 0, 0, 2] = x[3].view(-1)[CLASSES] = 1
    aims = torch.full((4,), 3)
    judge = Verifier(model, random, towards=True)
    verdict = judge.verdict(x, x, aims, Threat("Linf", 0.1))
    right = [False, True, False, False]
    assert verdict.broken.tolist() == judge.broken(x, aims).tolist() == right
    assert verdict.share.tolist() == [1.0, 0.0, 1.0, 1.0]
    assert (verdict.margin > 0).tolist() == right
    assert verdict.prediction.tolist()[:3] == [0, 3, 2]


def test_the_context_judges_by_targets_also_on_another_model(context):
    aimed = towards(replace(context, target=Verifier(Spread())), chosen("next", context))
    assert aimed.verifier.towards
    assert aimed.target.towards
    rows = torch.tensor([3, 5])
    assert torch.equal(aimed.aims(rows), (context.data.y[rows] + 1) % CLASSES)
    assert torch.equal(context.aims(rows), context.data.y[rows])
