"""The contract of every registered explanation, on real digits."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.explanations import EXPLANATIONS, ExplainedImages

pytest.importorskip("captum")

SMALL = {"masks": 30, "copies": 5, "iterations": 15}
NAMES = EXPLANATIONS.names()
ROWS = torch.tensor([7, 2, 5])


def built(name, **params):
    small = {key: value for key, value in SMALL.items() if EXPLANATIONS.accepts(name, key)}
    return EXPLANATIONS.build(Spec(name, {**small, **params}))


def asked(model, x, seed=0):
    ids = torch.arange(len(x)) + 40
    return ExplainedImages(
        model=model, x=x, target=model(x).argmax(1), noise=Noise(seed, ids).fork("explain")
    )


def only(question, rows):
    return replace(
        question,
        x=question.x[rows],
        target=question.target[rows],
        noise=question.noise.only(rows),
    )


@pytest.fixture(scope="module")
def question(digits_model):
    net, x, _ = digits_model
    return asked(net, x[:8])


@pytest.mark.parametrize("name", NAMES)
def test_there_is_a_finite_number_for_each_pixel(name, question):
    method = built(name)
    found = method.explained(question).attributions
    assert found.shape == (8, 1, 8, 8)
    assert found.isfinite().all()
    assert not found.requires_grad
    assert torch.equal(found, method.attributions(question))
    importance = method.saliency(found)
    assert importance.shape == (8, 8, 8)
    assert (importance >= 0).all()
    assert importance.flatten(1).amax(1).gt(0).all()


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_explained_alike_in_any_batch(name, question):
    """Some of the rows, in another order, and one alone."""
    method = built(name)
    together = method.explained(question)
    for rows in (ROWS, ROWS[:1]):
        apart = method.explained(only(question, rows))
        torch.testing.assert_close(
            apart.attributions, together.attributions[rows], rtol=1e-4, atol=1e-6
        )
        for key, values in apart.facts.items():
            torch.testing.assert_close(values, together.facts[key][rows])


@pytest.mark.parametrize("name", NAMES)
def test_an_explanation_leaves_everything_alone(name, question):
    """Weights, modes, gradients and hooks of the model, the images, and torch's generator."""
    model = copy.deepcopy(question.model).requires_grad_(True)
    model.train(False)
    state, x, drawn = copy.deepcopy(model.state_dict()), question.x.clone(), torch.get_rng_state()
    built(name).explained(replace(question, model=model))
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)
    assert torch.equal(question.x, x)
    assert not question.x.requires_grad
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    for module in model.modules():
        assert not module.training
        for hooks in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks"):
            assert not getattr(module, hooks), (module, hooks)


@pytest.mark.parametrize("name", NAMES)
def test_an_explanation_is_of_the_class_that_is_asked_about(name, question):
    other = replace(question, target=(question.target + 1) % 10)
    method = built(name)
    assert not torch.allclose(method.attributions(question), method.attributions(other))


@pytest.mark.parametrize("name", ["smoothgrad", "rise"])
def test_random_draws_follow_from_the_seed(name, question):
    method = built(name)
    other = replace(question, noise=Noise(1, question.noise.ids))
    assert not torch.allclose(method.attributions(question), method.attributions(other))


class Linear(nn.Module):
    """Logits W x of two classes; its explanations have closed forms."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        return x.flatten(1) @ self.weight.T


@pytest.fixture
def linear():
    return Linear(torch.randn(2, 16, generator=torch.Generator().manual_seed(3)))


def plain(model, count=3):
    x = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(4))
    noise = Noise(0, torch.arange(count))
    return ExplainedImages(model=model, x=x, target=torch.ones(count).long(), noise=noise)


def test_of_a_linear_model_gradients_are_its_weights(linear):
    question, row = plain(linear), linear.weight[1].detach().view(1, 4, 4)
    expected = {
        "gradient": row.expand(3, 1, 4, 4),
        "smoothgrad": row.expand(3, 1, 4, 4),
        "gradient-x-input": row * question.x,
        "integrated-gradients": row * question.x,
        "occlusion:window=1": row * question.x,
    }
    for text, value in expected.items():
        found = EXPLANATIONS.build(Spec.parse(text)).attributions(question)
        torch.testing.assert_close(found, value, rtol=1e-4, atol=1e-6)


def test_integrated_gradients_add_up_to_the_difference_of_the_logits(question):
    found = EXPLANATIONS.build(Spec("integrated-gradients", {"steps": 200}))
    total = found.attributions(question).flatten(1).sum(1)
    picked = question.target[:, None]
    both = [question.model(x).gather(1, picked).squeeze(1) for x in (question.x, 0 * question.x)]
    torch.testing.assert_close(total, both[0] - both[1], rtol=0.02, atol=0.05)


def test_an_occluding_window_takes_the_pixels_under_it(linear):
    question = plain(linear)
    method = EXPLANATIONS.build(Spec.parse("occlusion:window=2,stride=2,value=0.5"))
    found = method.attributions(question)
    change = linear.weight[1].detach().view(1, 1, 4, 4) * (question.x - 0.5)
    sums = nn.functional.avg_pool2d(change, 2) * 4
    expected = nn.functional.interpolate(sums, size=(4, 4))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_mask_of_rise_is_a_grid_that_was_enlarged_and_shifted(question):
    """One grey level for few cells; each example has masks of its own."""
    method, noise = built("rise", cells=2), question.noise
    masks = [method.mask(question.x, noise.at(torch.full((8,), index))) for index in range(400)]
    every = torch.stack(masks)
    assert every.shape == (400, 8, 1, 8, 8)
    assert ((every >= 0) & (every <= 1)).all()
    assert abs(float(every.mean()) - 0.5) < 0.02
    assert len(every[:, 0].flatten(1).unique(dim=0)) > 16 * 4  # 16 grids, 16 shifts
    assert not torch.equal(every[0, 0], every[0, 1])
    whole = every[every.flatten(2).std(2) == 0]
    assert set(whole.unique().tolist()) <= {0.0, 1.0}


def test_rise_finds_the_one_pixel_that_counts():
    class Pixel(nn.Module):
        def forward(self, x):
            score = 8 * x[:, 0, 3, 4]
            return torch.stack([0 * score, score - 4], 1)

    x = torch.ones(2, 1, 8, 8)
    noise = Noise(0, torch.arange(2))
    question = ExplainedImages(model=Pixel(), x=x, target=torch.tensor([1, 1]), noise=noise)
    method = EXPLANATIONS.build(Spec("rise", {"masks": 600}))
    importance = method.saliency(method.attributions(question))
    assert importance.flatten(1).argmax(1).tolist() == [3 * 8 + 4] * 2
