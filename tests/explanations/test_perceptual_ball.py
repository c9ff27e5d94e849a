"""The perceptual ball: closed forms, the authors' objective written anew, and its limits."""

import pytest
import torch
from torch import nn

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.explanations import EXPLANATIONS, ExplainedImages
from robustbench_cli.explanations._perceptual_ball import tap_names


class TwoClasses(nn.Module):
    """Logits (w x, 0): the margin of class 0 is w x."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight).double())

    def forward(self, x):
        score = x.flatten(1) @ self.weight
        return torch.stack([score, 0 * score], 1)


def of(model, x, target=None, seed=0):
    with torch.no_grad():
        target = model(x).argmax(1) if target is None else target
    noise = Noise(seed, torch.arange(len(x)))
    return ExplainedImages(model=model, x=x, target=target, noise=noise)


def built(**params):
    return EXPLANATIONS.build(Spec("perceptual-ball", params))


def test_a_linear_model_without_taps_has_the_closed_form():
    """delta = t w with t = (v - w x) / (|w|^2 + s / n); the numbers were worked out by hand."""
    weight, x = (1.0, -2.0, 2.0), torch.tensor([1.0, 0.0, 1.0]).double().view(1, 1, 1, 3)
    question = of(TwoClasses(weight), x, target=torch.tensor([0]))
    found = built(gamma=0, v=-2, s=1).explained(question)
    delta = torch.tensor([-0.535714, 1.071429, -1.071429]).double()
    torch.testing.assert_close(found.attributions.flatten(), delta, rtol=0, atol=1e-6)
    logits = question.model(found.counterfactual)
    margin = float((logits[0, 0] - logits[0, 1]).detach())
    assert abs(margin - -1.821429) < 1e-6
    loss = (margin + 2) ** 2 + float(found.attributions.square().mean())
    assert abs(loss - 0.892857) < 1e-6


class Features(nn.Module):
    """A small smooth-enough net in float64 with two rectified layers to tap."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten()
        )
        self.head = nn.Linear(64, 5)
        self.double().eval()

    def forward(self, x):
        return self.head(self.body(x))


@pytest.fixture(scope="module")
def net():
    return Features()


@pytest.fixture(scope="module")
def images():
    return torch.rand(4, 2, 8, 8, generator=torch.Generator().manual_seed(7)).double()


def official(model, x, target, *, v=-2, s=1, gamma=10.0, steps=20, form="margin"):
    """The authors' loss and descent for one image, from the paper's formula alone."""

    def features(z):
        first = model.body[1](model.body[0](z))
        return first, model.body[3](model.body[2](first))

    mse = nn.MSELoss()
    clean = [each.detach() for each in features(x)]
    moved = x.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([moved], max_iter=steps)

    def closure():
        z = model(moved)[0]
        others = torch.cat([z[:target], z[target + 1 :]]).max()
        score = z[target] - others if form == "margin" else z[target]
        apart = sum(mse(a, b) for a, b in zip(features(moved), clean, strict=True))
        value = (score - v) ** 2 + s * mse(moved, x) + gamma * apart
        optimizer.zero_grad()
        value.backward()
        return value

    optimizer.step(closure)
    return moved.detach(), float(closure().detach())


@pytest.mark.parametrize("form", ["margin", "class"])
@pytest.mark.parametrize("gamma", [0.0, 10.0, 1000.0])
def test_images_are_those_of_the_authors_descent(form, gamma, net, images):
    question = of(net, images)
    found = built(gamma=gamma, iterations=20, form=form).explained(question).counterfactual
    for row, target in enumerate(question.target.tolist()):
        expected, _ = official(net, images[row : row + 1], target, gamma=gamma, form=form)
        torch.testing.assert_close(found[row], expected[0], rtol=0, atol=1e-7)


def objective(model, x, moved, target, gamma, v=-2.0):
    """The objective and the feature distance of one image."""
    names, total = tap_names(model, "relus"), 0.0
    modules = dict(model.named_modules())
    kept = {}
    hooks = [
        modules[n].register_forward_hook(
            lambda _m, _i, out, n=n: kept.setdefault(n, []).append(out)
        )
        for n in names
    ]
    with torch.no_grad():
        model(x)
        logits = model(moved)[0]
    for hook in hooks:
        hook.remove()
    total = sum(float((a - b).square().mean()) for a, b in kept.values())
    rest = torch.cat([logits[:target], logits[target + 1 :]]).max()
    score = float(logits[target] - rest)
    return (score - v) ** 2 + float((moved - x).square().mean()) + gamma * total, total


def test_the_objective_falls_and_the_feature_distance_is_the_one_reported(net, images):
    question = of(net, images)
    for gamma in (1.0, 100.0, 1e4):
        found = built(gamma=gamma, iterations=60).explained(question)
        for row, target in enumerate(question.target.tolist()):
            x, moved = images[row : row + 1], found.counterfactual[row : row + 1]
            before, _ = objective(net, x, x, target, gamma)
            after, apart = objective(net, x, moved, target, gamma)
            assert after < before
            assert float(found.facts["feature distance"][row]) == pytest.approx(apart, rel=1e-5)


def test_without_weight_the_features_move_and_that_is_told(net, images):
    question = of(net, images)
    found = built(gamma=0).explained(question)
    for row, target in enumerate(question.target.tolist()):
        x, moved = images[row : row + 1], found.counterfactual[row : row + 1]
        _, apart = objective(net, x, moved, target, 1.0)
        assert apart > 0
        assert float(found.facts["feature distance"][row]) == pytest.approx(apart, rel=1e-5)


def test_a_larger_gamma_keeps_features_nearer_until_nothing_moves_them(net, images):
    question = of(net, images[:2])
    apart = torch.stack(
        [
            built(gamma=gamma, iterations=200).explained(question).facts["feature distance"]
            for gamma in (0.1, 10.0, 1e3, 1e6)
        ]
    )
    assert (apart.diff(dim=0) < 0).all(), apart
    assert (apart[-1] < 1e-8).all()


def test_a_huge_gamma_leaves_a_fully_tapped_image_as_it_is():
    """A first layer that is injective on the box: no change at all is free of cost."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
        net[0].bias.copy_(torch.tensor([1.0, 3.0]))
    question = of(net, torch.rand(2, 1, 4, 4).double())
    moved = [built(gamma=g, iterations=300).attributions(question).abs().amax() for g in (1, 1e8)]
    assert moved[1] < 1e-4 < moved[0]


def test_the_order_in_which_taps_are_named_is_irrelevant(net, images):
    question = of(net, images[:2])

    def seen(**taps):
        return built(gamma=10, iterations=60, **taps).attributions(question)

    one, other = (seen(taps=taps) for taps in ("body.1,body.3", "body.3,body.1"))
    assert torch.equal(one, other)
    assert torch.equal(one, seen())
    assert not torch.allclose(one, seen(taps="body.3"))


def test_an_image_has_a_descent_of_its_own(net, images):
    question = of(net, images)
    explanation = built(gamma=10, iterations=60)
    together = explanation.attributions(question)
    for row in range(len(images)):
        alone = of(net, images[row : row + 1])
        assert torch.equal(explanation.attributions(alone)[0], together[row])


def test_first_and_last_class_are_explained_like_any_other(net, images):
    """The authors' code takes the maximum of an empty tensor there."""
    for target in (0, 4):
        question = of(net, images[:1], target=torch.tensor([target]))
        assert built(gamma=1).attributions(question).isfinite().all()


def test_box_keeps_the_image_in_the_box_on_both_sides(net):
    """The authors' code writes the lower bound into pixels that are above the upper one."""
    x = torch.rand(3, 2, 8, 8).double().round()
    question = of(net, x)
    free = built(gamma=0, v=-50).explained(question).counterfactual
    assert (free < 0).any()
    assert (free > 1).any()
    kept = built(gamma=0, v=-50, box=True).explained(question).counterfactual
    assert ((kept >= 0) & (kept <= 1)).all()
    assert (kept == 1).any()
    assert (kept == 0).any()


def test_a_descent_that_runs_away_returns_the_best_image_it_saw(net, images):
    question = of(net, images)
    found = built(gamma=1e4, rate=300.0).explained(question)
    assert found.attributions.isfinite().all()
    for row, target in enumerate(question.target.tolist()):
        x = images[row : row + 1]
        before, _ = objective(net, x, x, target, 1e4)
        after, _ = objective(net, x, found.counterfactual[row : row + 1], target, 1e4)
        assert after <= before


def test_a_relative_gamma_weighs_both_distances_alike(net, images):
    """Features ten thousand times as large change nothing: the unit makes up for them."""

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x)

    question = of(net, images)
    one = built(gamma=3, relative=True, taps="body.1").attributions(question)
    large = Features()
    with torch.no_grad():
        large.body[0].weight *= 100
        large.body[0].bias *= 100
        large.body[2].weight /= 100
    other = built(gamma=3, relative=True, taps="body.1").attributions(of(large, images))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    plain = built(gamma=3, taps="body.1").attributions(of(large, images))
    assert not torch.allclose(one, plain, rtol=1e-2, atol=1e-4)


def test_the_map_is_the_blurred_size_of_the_change():
    change = torch.zeros(1, 2, 224, 224).double()
    change[0, :, 100, 100] = torch.tensor([3.0, 4.0]).double()
    sharp = built(sigma=0).saliency(change)
    assert float(sharp[0, 100, 100]) == pytest.approx(12.5**0.5)
    blurred = built().saliency(change)[0]
    bell = torch.exp(-(torch.arange(-8, 9).double() ** 2) / 8)
    bell = bell / bell.sum()
    expected = 12.5**0.5 * bell[:, None] * bell[None]
    torch.testing.assert_close(blurred[92:109, 92:109], expected)
    assert float(blurred.sum()) == pytest.approx(12.5**0.5)


def test_taps_are_names_patterns_and_the_embedding(net):
    assert tap_names(net, "relus") == ("body.1", "body.3")
    assert tap_names(net, "body.3, body.1") == ("body.1", "body.3")
    assert tap_names(net, "body.?") == tuple(f"body.{i}" for i in range(5))
    assert tap_names(net, "embedding") == ("embedding",)
    with pytest.raises(UserError, match=r"no layer 'body\.9'"):
        tap_names(net, "body.9")
    with pytest.raises(UserError, match="gamma=0"):
        tap_names(nn.Linear(2, 2), "relus")
