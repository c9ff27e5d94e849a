"""Attacks that search on a view of the model: the model itself decides, whatever the view says."""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import pytest
import torch
from torch import nn

from robustbench_cli.attacks import ATTACKS, Attack, Stage
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.batch_attack import attack_batch
from robustbench_cli.evaluation.view_search import BuiltViews
from robustbench_cli.views import SUBJECT_IMAGES, View

LINF = Threat("Linf", 0.1)
PGD = ATTACKS.build(Spec.parse("pgd10:climbs=margin"))


class Mean(nn.Module):
    """Class 1 from a mean of 0.55 on; the weight is there to be counted."""

    def __init__(self, slope=10.0, border=0.55, gradient=True):
        super().__init__()
        self.slope, self.border, self.gradient = slope, border, gradient
        self.calls = 0

    def forward(self, x):
        self.calls += len(x)
        score = self.slope * (x.flatten(1).mean(1) - self.border)
        score = score if self.gradient else score.detach() + 0 * x.sum((1, 2, 3))
        return torch.stack([0 * score, score], 1)


@dataclass(frozen=True, kw_only=True)
class Given(View):
    """A view that is made outside."""

    model: nn.Module | None = field(compare=False, hash=False)
    asked: list = field(default_factory=list, compare=False, hash=False)
    images: int = 0

    def build(self, subject):
        self.asked.append(subject)
        if self.images:
            with torch.no_grad():
                subject.model(subject.x[:1].expand(self.images, -1, -1, -1))
        return self.model


@dataclass(frozen=True, kw_only=True)
class Other(Given):
    faithful: ClassVar[bool] = False


@dataclass(frozen=True, kw_only=True)
class Thrice(Given):
    @property
    def passes(self):
        return 3


@dataclass(frozen=True, kw_only=True)
class Staged(Attack):
    made: tuple = ()

    def stages(self, threat, classes):
        return list(self.made)


def staged(*views, attack=PGD, **rest):
    stages = [Stage(f"member {i}", attack, 0, view, **rest) for i, view in enumerate(views)]
    return Staged(made=tuple(stages))


@pytest.fixture
def images():
    torch.manual_seed(3)
    return 0.45 + 0.1 * torch.rand(12, 1, 4, 4), torch.zeros(12, dtype=torch.long)


def attacked(model, images, attack, **options):
    x, y = images
    return attack_batch(model, x, y, attack, LINF, Noise(0, torch.arange(len(y))), **options)


def test_a_view_gives_the_gradient_and_the_model_the_verdict(images):
    hidden = Mean(gradient=False)
    assert not attacked(hidden, images, staged(None)).broken.any()
    found = attacked(hidden, images, staged(Given(model=Mean())))
    assert found.broken.all()
    assert hidden(found.x).argmax(1).eq(1).all()


@pytest.mark.parametrize("kind", [Given, Other])
def test_a_success_on_the_view_alone_is_none(kind, images):
    """The view is wrong from 0.5 on, the model only beyond the ball."""
    model, view = Mean(border=0.9), Mean(border=0.5)
    found = attacked(model, images, staged(kind(model=view)))
    assert view(found.x).argmax(1).eq(1).any()
    assert not found.broken.any()
    assert (found.by == -1).all()


def test_a_search_goes_on_past_the_border_of_an_unfaithful_view(images):
    """The view is wrong long before the model: the iterates after that count, too."""
    model, view = Mean(border=0.58), Mean(border=0.4)
    assert view(images[0]).argmax(1).eq(1).all()
    found = attacked(model, images, staged(Other(model=view)))
    assert found.broken.all()
    assert model(found.x).argmax(1).eq(1).all()
    # A faithful view's own claims are asked about once each, and the margin ends the same way.
    assert attacked(model, images, staged(Given(model=view))).broken.all()


def test_the_best_image_of_an_unfaithful_view_is_the_model_s_best(images):
    """The view leads away from the model's border; the start is then the best image."""
    model, view = Mean(border=0.9), Mean(slope=-10.0, border=0.3)
    best, view_s = (attacked(model, images, staged(kind(model=view))) for kind in (Other, Given))
    assert model(best.x)[:, 1].gt(model(view_s.x)[:, 1] + 0.5).all()


def test_a_view_that_is_not_called_for_costs_nothing(images):
    model = Mean(border=0.9)
    alone = attacked(model, images, staged(None))
    both = attacked(model, images, staged(Given(model=None), None))
    assert torch.equal(both.forwards, alone.forwards)
    assert torch.equal(both.backwards, alone.backwards)
    late = attacked(Mean(), images, staged(Given(model=None), None))
    assert (late.by == 1).all()


def test_a_view_is_built_once_and_only_where_something_stands(images):
    view = Given(model=Mean(border=0.95))
    attacked(Mean(border=0.9), images, staged(view, view))
    assert len(view.asked) == 1
    spared = Given(model=Mean())
    attacked(Mean(), images, staged(None, spared))
    assert spared.asked == []


def test_what_a_view_costs_is_counted(images):
    model = Mean(border=0.9)
    once, thrice, other, dear = (
        attacked(model, images, staged(view))
        for view in (
            Given(model=Mean(border=0.95)),
            Thrice(model=Mean(border=0.95)),
            Other(model=Mean(border=0.95)),
            Given(model=Mean(border=0.95), images=30),
        )
    )
    # The clean logits, 11 looks and the verdict.
    assert once.forwards.eq(13).all()
    assert once.backwards.eq(11).all()
    assert thrice.forwards.eq(35).all()
    assert thrice.backwards.eq(33).all()
    assert other.forwards.eq(24).all()
    assert dear.forwards.eq(16).all()  # 30 images of building, over 12 examples, rounded up


def test_an_example_that_has_cost_too_much_is_not_attacked_again(images):
    model = Mean(border=0.9)
    first = attacked(model, images, staged(None))
    twice = Staged(made=(*staged(None).made, *staged(None, most_spent=24).made))
    assert torch.equal(attacked(model, images, twice).forwards, 2 * first.forwards)
    twice = Staged(made=(*staged(None).made, *staged(None, most_spent=23).made))
    assert torch.equal(attacked(model, images, twice).forwards, first.forwards)


@pytest.mark.parametrize("kind", [Given, Other])
def test_verdicts_do_not_depend_on_batches_or_order(kind, images):
    x, y = images
    model, attack = Mean(border=0.6), staged(kind(model=Mean(border=0.57)))
    together = attacked(model, images, attack)
    assert 0 < together.broken.sum() < 12
    few = attacked(model, images, attack, slots=2)
    turned = torch.arange(11, -1, -1)
    back = attack_batch(model, x[turned], y[turned], attack, LINF, Noise(0, turned))
    for name in ("x", "broken", "step", "by", "forwards", "backwards"):
        value = getattr(together, name)
        torch.testing.assert_close(getattr(few, name), value, rtol=0, atol=1e-6)
        torch.testing.assert_close(getattr(back, name)[turned], value, rtol=0, atol=1e-6)


def test_a_search_on_a_view_draws_other_numbers_than_one_on_the_model():
    keys = {Stage("a", PGD, 0, view).key for view in (None, Given(model=None), Other(model=None))}
    assert len(keys) == 3
    assert "pgd" in keys


def test_views_are_built_from_the_same_images_whatever_their_order():
    from robustbench_cli.evaluation.eval_context import EvalContext
    from robustbench_cli.evaluation.search_model import exact_search_model
    from robustbench_cli.evaluation.tensors import Tensors
    from robustbench_cli.evaluation.verifier import Verifier

    model, ids = Mean(), torch.arange(SUBJECT_IMAGES + 40)
    x = ids.view(-1, 1, 1, 1).expand(-1, 1, 2, 2) / len(ids)
    context = EvalContext(
        data=Tensors(x, ids), threat=LINF, verifier=Verifier(model),
        search_model=exact_search_model(model), noise=Noise(0, ids),
    )  # fmt: skip
    turned = ids.flip(0)
    other = replace(context, data=Tensors(x[turned], turned), noise=Noise(0, turned))
    drawn, again = BuiltViews(context).subject, BuiltViews(other).subject
    assert len(drawn.x) == SUBJECT_IMAGES
    assert torch.equal(drawn.y, again.y)
    assert torch.equal(drawn.x, again.x)
    assert not torch.equal(drawn.y, drawn.y.sort().values)
