"""Models behind input defenses: their order, their ways back, and what they draw."""

import pytest
import torch
from torch import nn

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.verifier import Verifier
from robustbench_cli.input_defenses import INPUT_DEFENSES
from robustbench_cli.models.defended import DefendedModel, defended_part, with_backward
from robustbench_cli.models.keyed_draws import keyed_draws
from robustbench_cli.models.rejecting import ModelWithRejectClass, with_network


def built(*texts):
    return [INPUT_DEFENSES.build(Spec.parse(text)) for text in texts]


def test_the_first_defense_gets_the_image():
    x = torch.rand(4, 1, 6, 6)
    plain = nn.Flatten()
    first = DefendedModel(plain, built("bit-depth:1", "lgs"))(x)
    second = DefendedModel(plain, built("lgs", "bit-depth:1"))(x)
    by_hand = DefendedModel(plain, built("lgs"))(x.round())
    assert torch.equal(first, by_hand)
    assert not torch.equal(first, second)


def test_ways_back_of_several_defenses():
    model = DefendedModel(nn.Flatten(), built("lgs", "jpeg"))
    assert model.backwards == ("exact", "straight-through", "smoothed")
    straight = model.going_back("straight-through")
    assert straight.backwards[0] == "straight-through"
    assert model.going_back("exact") is None
    assert DefendedModel(nn.Flatten(), built("jpeg")).going_back("smoothed") is None
    leaf = torch.rand(2, 1, 8, 8, requires_grad=True)
    straight(leaf).sum().backward()
    assert torch.equal(leaf.grad, torch.ones_like(leaf))


def test_another_way_back_shares_the_classifier_and_keeps_what_is_around_it(digits_model):
    net, x, _ = digits_model
    model = ModelWithRejectClass(DefendedModel(net, built("median")), 9, 9).eval()
    other = with_backward(model, "straight-through")
    assert isinstance(other, ModelWithRejectClass)
    assert defended_part(other).model is net
    assert defended_part(model).backward is None
    assert torch.equal(other(x), model(x))
    assert with_backward(net, "exact") is None


def test_defenses_stay_in_front_of_a_network_that_is_changed(digits_model):
    net, x, _ = digits_model
    model = ModelWithRejectClass(DefendedModel(net, built("bit-depth")), 9, 9).eval()
    seen = []
    changed = with_network(model, lambda inner: seen.append(inner) or inner)
    assert seen == [net]
    assert torch.equal(changed(x), model(x))


@pytest.fixture
def random_model(digits_model):
    return DefendedModel(digits_model[0], built("resize-pad:smallest=0.4")).eval()


def test_draws_are_the_examples_within_the_context_and_new_in_each_pass(random_model, digits_model):
    x, noise = digits_model[1], Noise(3, torch.arange(24))

    def passes(rows):
        with keyed_draws(random_model, noise.only(rows)):
            return [random_model(x[rows]) for _ in range(2)]

    whole, few = passes(torch.arange(24)), passes(torch.tensor([20, 4]))
    for one, other in zip(whole, few, strict=True):
        torch.testing.assert_close(one[[20, 4]], other)
    assert not torch.equal(*whole)
    with keyed_draws(random_model, Noise(4, noise.ids)):
        assert not torch.equal(random_model(x), whole[0])


def test_contexts_nest_and_end(random_model, digits_model):
    x, noise = digits_model[1], Noise(3, torch.arange(24))
    with keyed_draws(random_model, noise):
        first, second = random_model(x), random_model(x)
    with keyed_draws(random_model, noise):
        random_model(x)
        with keyed_draws(random_model, noise.only(slice(5))):
            assert torch.allclose(random_model(x[:5]), first[:5], atol=1e-5)
        assert torch.equal(random_model(x), second)
    torch.manual_seed(5)
    free = random_model(x)
    torch.manual_seed(5)
    assert torch.equal(random_model(x), free)
    assert not torch.equal(random_model(x), free)


def test_verdicts_on_a_randomised_model_belong_to_the_example(random_model, digits_model):
    _, x, y = digits_model
    x, y = x[:8], y[:8]
    verifier, threat = Verifier(random_model, random=True), Threat("Linf", 0.1)
    noise = Noise(0, torch.arange(8)).fork("verdict")
    whole = verifier.verdict(x, x, y, threat, noise=noise)
    rows = torch.tensor([5, 3])
    torch.manual_seed(99)
    some = verifier.verdict(x[rows], x[rows], y[rows], threat, noise=noise.only(rows))
    assert torch.equal(some.share, whole.share[rows])
    assert torch.equal(some.prediction, whole.prediction[rows])
    assert len(whole.share.unique()) > 2  # they are no certainties
    other = verifier.verdict(x, x, y, threat, noise=noise.fork("other"))
    assert not torch.equal(other.share, whole.share)
