"""Mistakes that attack codes have made, each with a test that would notice it here."""

import copy
import hashlib
from dataclasses import fields, replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.attacks.autoattack import AutoAttack
from robustbench_cli.commands.eval_config import build_attacks
from robustbench_cli.config.schema import EvalConfig
from robustbench_cli.core.errors import RunError, UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.batch_attack import attack_batch
from robustbench_cli.evaluation.verifier import Verifier, predict, unchanged_model

LINF = Threat("Linf", 0.1)
FEW = [
    *("pgd:steps=8", "cw:steps=8", "apgd-ce-10", "apgd-t:steps=6,targets=2", "mim6"),
    *("fab-t:steps=5,targets=2,within=true", "square-40"),
]
few = pytest.mark.parametrize("text", FEW)


def build(text):
    return ATTACKS.build(Spec.parse(text))


def run(net, x, y, text, threat=LINF, **options):
    attack = build(text) if isinstance(text, str) else text
    return attack_batch(net, x, y, attack, threat, Noise(0, torch.arange(len(y))), **options)


# --- AutoAttack is AutoAttack ------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_autoattack_has_the_official_members_and_budgets(norm):
    stages = build("autoattack").stages(Threat(norm, 0.1), 10)
    members = [stage.member for stage in stages]
    assert members == ["apgd-ce"] + ["apgd-t"] * 9 + ["fab-t"] * 9 + ["square"]
    assert all(stage.attack.steps == 100 for stage in stages if stage.member != "square")
    assert {stage.attack.restarts for stage in stages} == {1}
    square = stages[-1].attack
    assert (square.queries, square.share, square.rescale) == (5000, 0.8, False)
    fab = stages[-2].attack
    assert (fab.alpha_max, fab.eta, fab.beta) == (0.1, 1.05, 0.9)
    assert stages[0].attack.rho == 0.75


def test_autoattack_in_l1_has_five_restarts_and_five_targets():
    stages = build("autoattack").stages(Threat("L1", 1), 10)
    members = [stage.member for stage in stages]
    assert members == ["apgd-ce"] * 5 + ["apgd-t"] * 5 + ["fab-t"] * 9 + ["square"]


def test_the_other_official_versions():
    plus = build("autoattack:version=plus").stages(LINF, 10)
    assert [stage.member for stage in plus] == (
        ["apgd-ce"] * 5 + ["apgd-dlr"] * 5 + ["fab"] * 5 + ["square"] + ["apgd-t"] * 9
    ) + ["fab-t"] * 9
    rand = build("autoattack:version=rand").stages(LINF, 10)
    assert [(stage.member, stage.attack.eot) for stage in rand] == [
        ("apgd-ce", 20),
        ("apgd-dlr", 20),
    ]


def test_targets_are_every_wrong_class_where_there_are_fewer_than_ten(digits_model):
    stages = build("autoattack").stages(LINF, 4)
    assert [stage.member for stage in stages].count("apgd-t") == 3
    assert [stage.member for stage in stages].count("fab-t") == 3


# --- Losses --------------------------------------------------------------------------------------


class Shifted(nn.Module):
    """The same classifier, with a constant added to every logit."""

    def __init__(self, net, shift):
        super().__init__()
        self.net, self.shift = net, shift

    def forward(self, x):
        return self.net(x) + self.shift


@few
def test_adding_a_constant_to_every_logit_changes_nothing(text, digits_model):
    """The true class must be masked by minus infinity, never by zero or minus a thousand."""
    net, x, y = digits_model
    net, x, y = copy.deepcopy(net).double(), x[:8].double(), y[:8]
    plain = run(net, x, y, text)
    for shift in (50.0, -50.0):
        moved = run(Shifted(net, shift), x, y, text)
        assert torch.equal(moved.broken, plain.broken)
        assert torch.equal(moved.step, plain.step)
        torch.testing.assert_close(moved.x, plain.x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("text", ["pgd:steps=8", "apgd-ce-10", "cw:steps=8"])
def test_the_last_example_of_a_batch_counts_as_much_as_any(text, digits_model):
    """A loss averaged over the batch drowns small gradients; here each has its own."""
    net, x, y = digits_model
    many, one = slice(0, 12), slice(11, 12)
    together = run(net, x[many], y[many], text)
    noise = Noise(0, torch.tensor([11]))
    alone = attack_batch(net, x[one], y[one], build(text), LINF, noise)
    assert torch.equal(together.broken[-1:], alone.broken)
    assert torch.equal(together.step[-1:], alone.step)


# --- Geometry ------------------------------------------------------------------------------------


class Bright(nn.Module):
    """Two classes by mean brightness, so that every pixel's gradient points one way."""

    def __init__(self, sign):
        super().__init__()
        self.sign = sign

    def forward(self, x):
        score = self.sign * (x.flatten(1).mean(1) - 0.5) * 40
        return torch.stack([-score, score, score - 60, score - 61], 1)


@pytest.mark.parametrize("text", FEW)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_saturated_pixels_still_move_inwards(text, value):
    """Half of the pixels are at the border of the box that the gradient points away from."""
    x = torch.full((3, 1, 4, 4), value)
    y = torch.zeros(3, dtype=torch.long)
    net = Bright(1.0 if value == 0 else -1.0)
    found = run(net, x, y, text, Threat("Linf", 0.6))
    moved = (found.x - x).abs().flatten(1)
    assert (moved > 0.01).float().mean() > 0.5
    assert ((found.x >= 0) & (found.x <= 1)).all()
    # The sign at a saturated pixel that could only leave the box must not freeze the others.
    mixed = x.clone()
    mixed[..., :2] = 0.5
    assert (run(net, mixed, y, text, Threat("Linf", 0.6)).x - mixed).abs()[..., :2].amax() > 0.05


@few
@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_what_is_returned_is_what_was_judged(text, norm, digits_model):
    """Adversarial images classified once more give the flags, and stay in ball and box."""
    net, x, y = digits_model
    threat = Threat(norm, {"Linf": 0.1, "L2": 0.6, "L1": 1.5}[norm])
    found = run(net, x, y, text, threat, slots=10)
    assert torch.equal(net(found.x).argmax(1) != y, found.broken)
    assert threat.inside(found.x, x).all()
    torch.testing.assert_close(threat.distance(found.x, x), found.norm)
    fell = found.broken & (net(x).argmax(1) == y)
    assert (found.by[found.broken] >= 0).all()
    assert (found.by[~found.broken] == -1).all()
    assert (found.norm[fell] > 0).all()


# --- Which iterate counts ------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_point_after_the_last_step_is_looked_at(norm, digits_model):
    """One step from the clean image is FGSM; who forgets the last look sees no attack at all."""
    net, x, y = digits_model
    net, x = copy.deepcopy(net).double(), x.double()
    threat = Threat(norm, {"Linf": 0.2, "L2": 1.5}[norm])
    leaf = x.clone().requires_grad_()
    nn.functional.cross_entropy(net(leaf), y, reduction="sum").backward()
    moved = threat.project(x + threat.eps * threat.steepest(leaf.grad), x)
    expected = net(moved).argmax(1) != y
    assert 3 < expected.sum() < 24
    for text in ("pgd:steps=1,step=1,start=clean", "fgsm", "pgd:steps=1,step=1,start=clean,eot=2"):
        found = run(net, x, y, text, threat)
        assert torch.equal(found.broken, expected | (net(x).argmax(1) != y))
        assert (found.step[expected & (net(x).argmax(1) == y)] == 1).all()


def test_restarts_only_add_broken_examples(digits_model):
    net, x, y = digits_model
    one, four = (run(net, x, y, f"pgd:steps=3,step=0.4,restarts={n}") for n in (1, 4))
    assert (one.broken <= four.broken).all()
    assert torch.equal(four.by == 0, one.broken)  # the first one is the same either way
    torch.testing.assert_close(four.x[one.broken], one.x[one.broken])
    tri, both = (run(net, x, y, f"apgd-t:steps=6,targets={n}") for n in (1, 3))
    assert (tri.broken <= both.broken).all()


def test_random_starts_differ_between_restarts_and_examples(digits_model):
    net, x, y = digits_model
    x, y = x[:1].expand(4, 1, 8, 8).clone(), y[:1].expand(4).clone()
    tiny = Threat("Linf", 1e-3)
    found = run(net, x, y, "pgd:steps=1,step=0.05,restarts=1", tiny)
    assert all(not torch.equal(found.x[0], found.x[i]) for i in (1, 2, 3))


# --- What cannot be judged -----------------------------------------------------------------------


def config(text, norm="Linf"):
    spec = ATTACKS.resolve(Spec.parse(text))
    table = {"name": spec.name, **spec.params}
    return EvalConfig(
        attack={text: table},
        dataset={"name": "digits"},
        model={"name": "x"},
        threat=Threat(norm, 0.1),
    )


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        *(("apgd-t", 3), ("autoattack-reference", 3), ("apgd-dlr", 2), ("apgd-dlr:target=1", 2)),
        *(("ensemble:apgd-ce/apgd-t", 3), ("pgd:climbs=dlr", 2), ("cw:climbs=dlr", 2)),
        ("mim:climbs=gce", 2),
    ],
)
def test_too_few_classes_for_the_loss_are_refused_by_name(text, classes):
    """Sorting out a logit that is not there crashes, or compares the wrong ones."""
    with pytest.raises(UserError, match=f"needs at least . classes; the data set has {classes}"):
        build_attacks(config(text), classes)


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        *(("apgd-dlr", 3), ("apgd-t", 4), ("pgd", 2), ("pgd:climbs=dlr,steps=2", 3)),
        ("pgd:climbs=gce,steps=2", 3),
        *(("autoattack:version=rand", 2), ("autoattack:version=plus", 2), ("autoattack", 2)),
        *(("autoattack:target=1", 3), ("apgd-t:target=next", 4), ("apgd-margin", 2)),
    ],
)
def test_just_enough_classes_are_enough(text, classes, monkeypatch):
    """Of AutoAttack every member runs for a few steps: what is not defined fails at the first."""
    whole = AutoAttack.members

    def short(self, *args):
        few = {"steps": 3, "queries": 9}
        return {
            name: replace(each, **{f.name: few[f.name] for f in fields(each) if f.name in few})
            for name, each in whole(self, *args).items()
        }

    monkeypatch.setattr(AutoAttack, "members", short)
    attack = build_attacks(config(text), classes)[text]
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, classes))
    assert len(run(net, torch.rand(2, 1, 2, 2), torch.arange(2), attack).broken) == 2


def test_logits_that_are_not_numbers_are_no_success(digits_model):
    net, *_ = digits_model
    with pytest.raises(UserError, match="NaN or infinite"):
        predict(lambda x: net(x) * float("nan"), torch.rand(2, 1, 8, 8))


class Restless(nn.Module):
    """A model that goes on learning from what it is shown."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.register_buffer("seen", torch.zeros(1, 8, 8))

    def forward(self, x):
        self.seen.mul_(0.9).add_(0.1 * x.detach().mean(0))
        return self.net(x - 0.01 * self.seen)


@few
def test_nothing_about_the_model_changes(text, digits_model):
    def hashed(model):
        digest = hashlib.sha256()
        for name, value in model.state_dict().items():
            digest.update(name.encode() + value.numpy().tobytes())
        return digest.hexdigest()

    net, x, y = digits_model
    net = copy.deepcopy(net).train().requires_grad_(True)
    before = hashed(net)
    run(net, x[:6], y[:6], text)
    assert hashed(net) == before  # BatchNorm's statistics and counters among it
    assert net.training
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


class Fading(nn.Module):
    """A parameter that wears off with every pass."""

    def __init__(self, net):
        super().__init__()
        self.net, self.scale = net, nn.Parameter(torch.ones(1))

    def forward(self, x):
        with torch.no_grad():
            self.scale.mul_(0.999)
        return self.net(x) * self.scale


class Adapting(nn.Module):
    """Running statistics that go on in evaluation mode."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("var", torch.ones(1))

    def forward(self, x):
        return self.net(F.batch_norm(x, self.mean, self.var, training=True) * 0.3 + 0.3)


class Secret(Fading):
    """Written where autograd does not see it, and into what no state dict holds."""

    def __init__(self, net):
        super().__init__(net)
        del self.scale
        self.register_buffer("scale", torch.ones(1), persistent=False)

    def forward(self, x):
        self.scale.data.mul_(0.999)
        return self.net(x) * self.scale


class Replaced(Restless):
    """Another buffer of the same name."""

    def forward(self, x):
        self.seen = self.seen + 1
        return self.net(x)


CHANGING = {
    Restless: "buffer 'seen'",
    Replaced: "buffer 'seen'",
    Fading: "parameter 'scale'",
    Adapting: "buffer 'mean', buffer 'var'",
    Secret: "buffer 'scale'",
}


@pytest.mark.parametrize("kind", CHANGING)
def test_a_model_that_changes_while_it_is_evaluated_is_an_error(kind, digits_model):
    net, x, y = digits_model
    with pytest.raises(RunError, match=f"changed its {CHANGING[kind]} while") as caught:
        run(kind(net), x, y, "pgd:steps=2")
    assert "\n" not in str(caught.value)


def test_what_only_looks_like_a_change_is_none(digits_model):
    """Numbers that are not, values that are written back, and tensors made at the first pass."""
    _, x, y = digits_model
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    model.register_buffer("unused", torch.full((2,), torch.nan))
    model.register_buffer("seen", torch.zeros(()))
    model.register_forward_pre_hook(lambda m, _: setattr(m, "seen", m.seen.clone()))
    model.register_forward_pre_hook(lambda m, _: m.register_buffer("cache", torch.ones(1)))
    assert len(run(model, x, y, "fgsm").broken) == len(y)


# --- Randomised models ---------------------------------------------------------------------------


class Dice(nn.Module):
    """Wrong with a chance of its own for every image: that of its first pixel."""

    def forward(self, x):
        wrong = torch.rand(len(x)) < x.flatten(1)[:, 0]
        gap = torch.where(wrong, 1.0, -1.0)
        logits = torch.stack([-gap, gap, gap - 9, gap - 9], 1)
        return logits + 0 * x.flatten(1).sum(1, keepdim=True)


def test_one_lucky_draw_breaks_nothing():
    """An example is broken when every fresh draw is wrong; otherwise its share is what counts."""
    x = torch.full((3, 1, 2, 2), 0.5)
    x[:, 0, 0, 0] = torch.tensor([0.3, 0.8, 1.0])
    y = torch.zeros(3, dtype=torch.long)
    verifier = Verifier(Dice(), random=True)
    with unchanged_model(verifier.model):
        verdict = verifier.verdict(x, x, y, LINF)
        assert verdict.broken.tolist() == [False, False, True]
        assert abs(verdict.share[0] - 0.7) < 0.2
        assert abs(verdict.share[1] - 0.2) < 0.16
        assert verdict.share[2] == 0
        assert verdict.prediction.tolist() == [0, 1, 1]
        assert verifier.broken(x, y).tolist()[0::2] == [False, True]
    certain = Verifier(Dice())
    assert set(certain.verdict(x[2:], x[2:], y[2:], LINF).broken.tolist()) == {True}


def test_gradients_are_averaged_over_draws_when_asked():
    class Noisy(nn.Module):
        """The gradient's sign is wrong in most draws, but not on average."""

        def forward(self, x):
            slope = torch.where(torch.rand(len(x)) < 0.7, -1.0, 4.0)
            score = slope * (x.flatten(1).mean(1) - 0.5)
            return torch.stack([0 * score, score - 20, score - 30, score - 40], 1)

    x, y = torch.full((40, 1, 2, 2), 0.5), torch.zeros(40, dtype=torch.long)
    single = run(Noisy(), x, y, "pgd:steps=1,step=1,start=clean,last_iterate=true")
    average = run(Noisy(), x, y, "pgd:steps=1,step=1,start=clean,last_iterate=true,eot=100")
    assert ((single.x - x).flatten(1).mean(1) > 0).float().mean() < 0.6
    assert ((average.x - x).flatten(1).mean(1) > 0).float().mean() > 0.85
    assert (average.backwards == 2 * 100).all()
