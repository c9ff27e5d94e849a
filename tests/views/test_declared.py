"""Views that take the gradient another declared way through input defenses."""

import pytest
import torch

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.input_defenses import INPUT_DEFENSES
from robustbench_cli.models.defended import DefendedModel, defended_part
from robustbench_cli.views import VIEWS, ViewSubject


@pytest.fixture
def viewed(digits_model):
    """The view of the digits net behind a defense."""
    net, x, y = digits_model

    def view(text, *defenses):
        fronts = [INPUT_DEFENSES.build(Spec.parse(each)) for each in defenses]
        model = DefendedModel(net, fronts).eval() if fronts else net
        random = any(front.randomised for front in fronts)
        subject = ViewSubject(
            model=model,
            x=x,
            y=y,
            threat=Threat("Linf", 0.1),
            noise=Noise(0, torch.arange(24)),
            random=random,
        )
        return model, VIEWS.build(Spec.parse(text)).build(subject)

    return view


def test_a_declared_way_has_the_models_answers_and_its_own_gradient(viewed, digits_model):
    x = digits_model[1]
    for way in ("straight-through", "smoothed"):
        model, view = viewed(f"declared:{way}", "median")
        assert torch.equal(view(x), model(x))
        grads = []
        for each in (model, view):
            leaf = x.clone().requires_grad_()
            each(leaf).amax(1).sum().backward()
            grads.append(leaf.grad)
        assert not torch.equal(*grads)


def test_no_reason_no_view(viewed):
    assert viewed("declared:exact", "median")[1] is None  # that is followed anyway
    assert viewed("declared:smoothed", "jpeg")[1] is None  # not declared
    assert viewed("declared:straight-through")[1] is None  # no defense
    assert viewed("averaged-declared:straight-through", "median")[1] is None  # not randomised


def test_draws_are_averaged_where_the_defense_is_random(viewed, digits_model):
    assert viewed("declared:exact", "total-variation")[1] is None
    _, view = viewed("averaged-declared:exact,draws=3", "total-variation:steps=5")
    assert view.draws == 3
    assert defended_part(view).backward == "exact"
    assert viewed("averaged-declared:exact", "resize-pad")[1] is None
    assert view(digits_model[1]).shape == (24, 10)
