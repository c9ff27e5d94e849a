"""Certified defenses: their losses written out, their ramps, what they refuse, what they prove."""

import copy
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.defenses import DEFENSES, Recipe, parse
from robustbench_cli.defenses._certified import CertifiedTraining
from robustbench_cli.defenses._step import Passes, Setting, Step
from robustbench_cli.models import MODELS, Classifier, Shape

SHAPE = Shape(1, 4, 4, 3, (0.3,), (0.5,))
EPS = 0.05
KINDS = [n for n in DEFENSES.names() if issubclass(DEFENSES.entry(n).cls, CertifiedTraining)]
TEXTS = [*KINDS, "diffai:domain=zonotope", "ibp:curve=smooth"]


@pytest.fixture
def net():
    """Two linear layers, so that bounds can be written out in a few lines."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU())
    normalize = MODELS.build(Spec("strided-cnn")).normalizer(SHAPE)
    return Classifier(normalize, body, nn.Linear(12, 3)).double()


@pytest.fixture
def step(net):
    x, y = torch.rand(5, 1, 4, 4).double(), torch.tensor([0, 1, 2, 0, 1])
    noise = Noise(0, torch.arange(5))
    return Step(model=net, x=x, y=y, classes=3, threat=Threat("Linf", EPS), noise=noise)


def loss_of(text, step):
    objective = DEFENSES.build(Spec.parse(text))
    return objective.loss(step, Passes(step.model, {"clean": step.x}))


class Written:
    """The bounds of the net, layer by layer: h = ReLU(W1 (x - m) / s + b1), z = W2 h + b2."""

    def __init__(self, step, eps):
        net, y = step.model, step.y
        scale = 1 / net.normalize.std.flatten()
        self.w1 = net.body[1].weight * scale
        self.b1 = net.body[1].bias - self.w1.sum(1) * net.normalize.mean.flatten()
        low, high = (step.x - eps).clamp(0).flatten(1), (step.x + eps).clamp(max=1).flatten(1)
        self.x, self.r = (low + high) / 2, (high - low) / 2
        middle, radius = self.x @ self.w1.T + self.b1, self.r @ self.w1.abs().T
        self.low, self.high = middle - radius, middle + radius
        head, shift = net.head.weight, net.head.bias
        self.c, self.d = head[y].unsqueeze(1) - head, shift[y].unsqueeze(1) - shift

    def ibp(self):
        """The smallest margins (B, K) when every hidden unit takes any value of its interval."""
        low, high = self.low.relu().unsqueeze(1), self.high.relu().unsqueeze(1)
        return (self.c.clamp(min=0) * low + self.c.clamp(max=0) * high).sum(2) + self.d

    def crown(self):
        """The same by a line below and a line above each ReLU, and the box of the images."""
        low, high = self.low, self.high
        slope = torch.where(low >= 0, 1.0, torch.where(high <= 0, 0.0, high / (high - low)))
        lower = torch.where((low < 0) & (high > 0), (slope > 0.5).double(), slope)
        at = torch.where((low < 0) & (high > 0), -slope * low, 0.0)
        up, down = self.c.clamp(min=0), self.c.clamp(max=0)
        a = up * lower.unsqueeze(1) + down * slope.unsqueeze(1)
        rest = (down * at.unsqueeze(1)).sum(2) + self.d + a @ self.b1
        a = a @ self.w1
        least = (a * self.x.unsqueeze(1)).sum(2) - (a.abs() * self.r.unsqueeze(1)).sum(2)
        return least + rest

    def zonotope(self):
        """The same over hybrid zonotopes with the ReLU transformer zSwitch."""
        terms = self.w1.unsqueeze(0) * self.r.unsqueeze(1)  # (B, H, D)
        middle = (self.low + self.high) / 2
        low, high = self.low, self.high
        open_ = (low < 0) & (high > 0)
        keep = torch.where(open_, (high > -low).double(), (low >= 0).double())
        # Kept: the input plus [0, -l]; dropped: the interval [0, u] alone.
        width = torch.where(open_, torch.where(keep > 0, -low, high), 0.0)
        centre = keep * middle + width / 2
        spread = (self.c @ (keep.unsqueeze(2) * terms)).abs().sum(2)
        box = self.c.abs() @ (width / 2).unsqueeze(2)
        return (self.c @ centre.unsqueeze(2)).squeeze(2) - spread - box.squeeze(2) + self.d


def worst(margins, y):
    return F.cross_entropy(-margins, y, reduction="none")


@pytest.mark.parametrize("progress", [0.05, 0.12, 0.9])
def test_ibp_is_its_formula(progress, step):
    step = replace(step, progress=progress)
    done = min(1, max(0, (progress - 1 / 30) * 6))
    kappa, eps = 1 - done / 2, 1.1 * EPS * done
    clean = F.cross_entropy(step.model(step.x), step.y, reduction="none")
    expected = kappa * clean + (1 - kappa) * worst(Written(step, eps).ibp(), step.y)
    torch.testing.assert_close(loss_of("ibp", step), expected)


@pytest.mark.parametrize("progress", [0.2, 0.5, 0.9])
def test_crown_ibp_is_its_formula(progress, step):
    text = "crown-ibp:curve=linear,warmup=0.1,ramp=0.5,kappa=0.2,stretch=1"
    step = replace(step, progress=progress)
    done = min(1, (progress - 0.1) / 0.5)
    kappa, bounds = 1 - 0.8 * done, Written(step, EPS * done)
    margins = (1 - done) * bounds.crown() + done * bounds.ibp()
    clean = F.cross_entropy(step.model(step.x), step.y, reduction="none")
    expected = kappa * clean + (1 - kappa) * worst(margins, step.y)
    torch.testing.assert_close(loss_of(text, step), expected)


@pytest.mark.parametrize(("text", "kind"), [("box", "ibp"), ("zonotope", "zonotope")])
def test_diffai_is_its_formula(text, kind, step):
    margins = getattr(Written(step, EPS), kind)()
    clean = F.cross_entropy(step.model(step.x), step.y, reduction="none")
    expected = (clean + 0.1 * worst(margins, step.y)) / 1.1
    found = loss_of(f"diffai:domain={text}", replace(step, progress=0.0))
    torch.testing.assert_close(found, expected)


def test_the_domains_order_the_bounds(step):
    """On a ball of some size the tighter domain gives the smaller loss."""
    step = replace(step, threat=Threat("Linf", 0.02))
    box, zonotope = (loss_of(f"diffai:kappa=0,domain={d}", step).sum() for d in ("box", "zonotope"))
    linear = loss_of("crown-ibp:kappa=0,beta=1,stretch=1", step).sum()
    attacked = F.cross_entropy(step.model(step.x), step.y, reduction="sum")
    assert attacked < linear < box
    assert attacked < zonotope < box


@pytest.mark.parametrize("text", TEXTS)
def test_without_a_radius_the_loss_is_the_plain_cross_entropy(text, step):
    plain = F.cross_entropy(step.model(step.x), step.y, reduction="none")
    small = replace(step, threat=Threat("Linf", 1e-13))
    torch.testing.assert_close(loss_of(text, small), plain)
    objective = DEFENSES.build(Spec.parse(text))
    if objective.warmup:
        early = replace(step, progress=0.9 * objective.warmup)
        torch.testing.assert_close(loss_of(text, early), plain, rtol=0, atol=0)


@pytest.mark.parametrize("text", TEXTS)
def test_no_image_of_the_ball_has_a_larger_loss(text, step):
    objective = DEFENSES.build(Spec.parse(text))
    bound = loss_of(f"{text}{',' if ':' in text else ':'}kappa=0", step)
    threat = Threat("Linf", EPS * objective.stretch)
    for i in range(50):
        x = threat.random_start(step.x, step.noise.fork(i))
        assert (F.cross_entropy(step.model(x), step.y, reduction="none") <= bound + 1e-9).all()


@pytest.mark.parametrize("curve", ["linear", "smooth"])
def test_the_radius_grows_from_nothing_to_all_without_a_jump(curve):
    made = DEFENSES.build(Spec("ibp", {"curve": curve, "warmup": 0.2, "ramp": 0.4}))
    assert [made.grown(at) for at in (0.0, 0.1, 0.2)] == [0, 0, 0]
    assert made.grown(0.6) == pytest.approx(1)
    assert made.grown(1.0) == 1
    points = [made.grown(i / 10_000) for i in range(10_001)]
    rises = [after - before for before, after in pairwise(points)]
    assert min(rises) >= 0
    assert max(rises) < 1e-3
    if curve == "linear":
        assert made.grown(0.4) == pytest.approx(0.5)
        return
    # A fourth power up to a quarter of the ramp, then a line: eps1 = 1, T = 1, mid = 1/4.
    alpha = 1 / (0.75 * 4 * 0.25**3 + 0.25**4)
    assert made.grown(0.25) == pytest.approx(alpha * 0.125**4)
    assert made.grown(0.3) == pytest.approx(alpha * 0.25**4)
    assert made.grown(0.5) == pytest.approx(alpha * (0.25**4 + 0.5 * 4 * 0.25**3))
    # On the ramp its slope has no jump either.
    within = rises[2_001:5_999]
    assert max(abs(b - a) for a, b in pairwise(within)) < 0.01 * max(within)


def test_kappa_and_beta_at_the_beginning_the_middle_and_the_end(step):
    """Each is read off the loss, in which the two terms are known."""
    clean = F.cross_entropy(step.model(step.x), step.y, reduction="none")
    text = "ibp:warmup=0,ramp=1,kappa=0.25,stretch=1"
    for progress, kappa in {1e-9: 1, 0.5: 0.625, 1.0: 0.25}.items():
        bound = worst(Written(step, EPS * progress).ibp(), step.y)
        found = loss_of(text, replace(step, progress=progress))
        torch.testing.assert_close(found, kappa * clean + (1 - kappa) * bound)
    text = "ibp:warmup=0,ramp=1,kappa_start=0,kappa=0.5,stretch=1"
    for progress, kappa in {1e-9: 0, 0.5: 0.25, 1.0: 0.5}.items():
        bound = worst(Written(step, EPS * progress).ibp(), step.y)
        found = loss_of(text, replace(step, progress=progress))
        torch.testing.assert_close(found, kappa * clean + (1 - kappa) * bound)
    text = "crown-ibp:curve=linear,warmup=0,ramp=1,kappa=0,stretch=1,beta=0.2"
    for progress, beta in {0.5: 0.6, 1.0: 0.2}.items():
        bounds = Written(step, EPS * progress)
        bound = worst(beta * bounds.crown() + (1 - beta) * bounds.ibp(), step.y)
        kappa = 1 - progress
        found = loss_of(text, replace(step, progress=progress))
        torch.testing.assert_close(found, kappa * clean + (1 - kappa) * bound)


def test_weights_that_a_modifier_moved_are_those_that_are_bounded(step):
    recipe = Recipe.build(parse("ibp+awp:gamma=0.5,warmup=0"))
    plain = copy.deepcopy(step.model)
    with ExitStack() as moved:
        moved_loss = recipe.backward(step, moved).loss
        inside = [p.clone() for p in step.model.parameters()]
    assert moved_loss > loss_of("ibp", replace(step, model=plain)).mean()
    assert any(not torch.equal(a, b) for a, b in zip(inside, plain.parameters(), strict=True))


def setting(net, **changes):
    fresh = lambda: copy.deepcopy(net)  # noqa: E731
    return Setting(model=net, shape=SHAPE, batch_size=4, fresh=fresh, **changes)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (nn.BatchNorm1d(12), "BatchNorm1d in training mode"),
        (nn.Dropout(0.5), "dropout in training mode"),
        (nn.GELU(), "GELU"),
    ],
)
def test_a_layer_without_bounds_is_one_line_before_training(name, layer, said, net):
    net.body.append(layer.double())
    with pytest.raises(UserError, match=rf"^{name}: .*{said} \(body\.3\); train a net") as caught:
        Recipe.build(parse(name)).auxiliaries(setting(net.train()))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("threat", [Threat("patch", 2), Threat("Linf", 0.1, mask="border:width=1")])
def test_what_is_no_whole_ball_is_refused(threat, net):
    with pytest.raises(UserError, match=r"^ibp trains on bounds of whole Linf, L2 or L1 balls"):
        Recipe.build(parse("ibp")).auxiliaries(setting(net, threat=threat))


def test_bounds_are_in_full_float32_where_the_net_trains_in_less(step):
    step.model.low_precision = True
    torch.testing.assert_close(
        loss_of("ibp:kappa=0", step), worst(Written(step, 1.1 * EPS).ibp(), step.y)
    )
    assert step.model.low_precision
