"""Adaptive: whatever hides a gradient is found, and it is never weaker than AutoAttack."""

from collections import Counter

import pytest
import torch
from torch import nn

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.attacks.adaptive import Adaptive
from robustbench_cli.attacks.autoattack import AutoAttack
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation import verifier
from robustbench_cli.views import VIEWS

LINF = Threat("Linf", 0.15)
SMALL = "adaptive:budget=900"
"""A budget for the model itself and for most views, without the long members of AutoAttack."""


class Killed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return torch.zeros_like(grad)


class Masked(nn.Module):
    """A net whose images and logits are changed so that gradients do not show what it does."""

    def __init__(self, net, before=lambda x: x, after=lambda z: z):
        super().__init__()
        self.net, self.before, self.after = net, before, after

    def forward(self, x):
        return self.after(self.net(self.before(x)))


MASKS = {
    "killer": ({"before": Killed.apply}, "straight-through"),
    "sawtooth": ({"before": lambda x: x - 1.7 * (x % 0.02)}, "straight-through"),
    "leaky quantiser": (
        {"before": lambda x: (15 * x).round() / 15 + 1e-3 * (x.flip(-1) - x.flip(-2))},
        "straight-through",
    ),
    "rounded logits": (
        {"after": lambda z: z.round().detach() + 1e-3 * z.roll(1, 1)},
        "straight-through",
    ),
    "saturated": ({"after": lambda z: torch.tanh(60 * z) + 1e-6 * z}, ""),
    "probabilities": ({"after": lambda z: (40 * z).softmax(1)}, ""),
}


def broken_by(found, attack, threat=LINF, classes=10):
    stages = attack.stages(threat, classes)
    return Counter(stages[number].member for number in found.by[found.by >= 0])


@pytest.fixture
def right(digits_model):
    net, x, y = digits_model
    kept = net(x).argmax(1) == y
    return net, x[kept][:12], y[kept][:12]


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_falls_by_the_view_made_for_it(name, right, run, build):
    net, x, y = right
    (options, view) = MASKS[name]
    model = Masked(net, **options)
    still = model(x).argmax(1) == y
    x, y = x[still], y[still]
    plain, weak = (run(m, x, y, "pgd20", LINF).broken.sum() for m in (net, model))
    found = run(model, x, y, SMALL, LINF)
    assert weak < plain
    # At least half of the way to what falls without the mask.
    assert 2 * found.broken.sum() >= plain + weak
    assert model(found.x[found.broken]).argmax(1).ne(y[found.broken]).all()
    members = broken_by(found, build(SMALL))
    assert any(member.startswith(view) for member in members), members


def test_scaled_logits_are_no_obstacle(right, run):
    net, x, y = right
    for factor in (1e4, 1e-6):
        model = Masked(net, after=lambda z, factor=factor: factor * z)
        plain, found = run(net, x, y, "pgd20", LINF), run(model, x, y, SMALL, LINF)
        assert found.broken.sum() >= plain.broken.sum()


@pytest.fixture
def few_votes(monkeypatch):
    """Verdicts on a randomised model by fewer draws: enough to tell what falls from what stands."""
    monkeypatch.setattr(verifier, "VOTING_DRAWS", 25)


@pytest.mark.usefixtures("few_votes")
def test_a_random_model_is_attacked_on_the_average_of_its_draws(right, run, build):
    net, x, y = right
    x, y, threat = x[:8], y[:8], Threat("Linf", 0.25)
    model = Masked(net, before=lambda z: z + 0.15 * torch.randn_like(z))
    weak = run(model, x, y, "pgd20", threat, random=True)
    found = run(model, x, y, "adaptive:budget=2000", threat, random=True)
    assert found.broken.sum() >= weak.broken.sum()
    assert broken_by(found, build(SMALL), threat)["averaged-draws/pgd"] > 0


@pytest.mark.usefixtures("few_votes")
def test_a_random_model_that_kills_gradients_falls_to_views_that_open_it(right, run, build):
    """Which of them comes first may differ; the average over draws is for what they leave."""
    net, x, y = right
    x, y, threat = x[:5], y[:5], Threat("Linf", 0.25)

    def killed(z):
        return (7 * (z + 0.1 * torch.randn_like(z))).round().detach() / 7 + 0 * z

    model = Masked(net, before=killed)
    found = run(model, x, y, SMALL, threat, random=True)
    assert run(model, x, y, "pgd5", threat, random=True).broken.sum() < found.broken.sum()
    assert broken_by(found, build(SMALL), threat)["straight-through/pgd"] > 0


def test_a_sound_model_falls_to_it_wherever_autoattack_breaks_it(right, run):
    """As far as its Auto-PGDs break it; FAB and Square take long, and come as they are."""
    net, x, y = right
    x, y, threat = x[:8], y[:8], Threat("Linf", 0.12)
    broken = run(net, x, y, "apgd-ce", threat).broken | run(net, x, y, "apgd-t", threat).broken
    adaptive = run(net, x, y, "adaptive:budget=3000", threat)
    assert 0 < broken.sum() < 8
    assert (broken <= adaptive.broken).all()
    members = broken_by(adaptive, Adaptive(), threat)
    assert not any("/" in member for member in members), members


def test_autoattack_s_members_come_as_they_are():
    for norm, eps in (("Linf", 0.1), ("L2", 0.5), ("L1", 5.0)):
        threat = Threat(norm, eps)
        mine, standard = Adaptive().members(threat), AutoAttack().members(threat)
        assert {name: mine[name] for name in standard} == dict(standard)
        own = [
            (stage.attack, stage.restart_or_target, stage.key)
            for stage in Adaptive().stages(threat, 10)
            if stage.view is None and stage.member in standard
        ]
        theirs = AutoAttack().stages(threat, 10)
        assert own == [(each.attack, each.restart_or_target, each.key) for each in theirs]


def test_the_default_budget_leaves_room_for_all_of_autoattack():
    """Whatever the blocks before have cost, on a model with sound gradients."""
    blocks = Adaptive()._blocks(Threat("Linf", 0.1), 10)
    spent = 0
    for name, block in blocks.items():
        if not block.view:
            spent += block.passes * block.attack.restarts_or_targets(10)
            assert spent < Adaptive().budget, name
    stages = Adaptive().stages(Threat("Linf", 0.1), 10)
    assert all(stage.most_spent == 15_000 - blocks[stage.member].passes for stage in stages)


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        *((name, 10) for name in ("md", "corners", "square-500", "pma", "apgd-t", "fab-t", "rays")),
        ("apgd-dlr", 3),
        ("apgd-margin", 2),
    ],
)
def test_no_block_takes_more_than_it_says(name, classes, right, run, build):
    """So a block that is begun ends within the budget."""
    net, x, y = right
    block = Adaptive()._blocks(Threat("Linf", 0.01), classes)[name]
    spec = {"square-500": "square500", "fab-t": "fab-t:within=true"}.get(name, name)
    assert build(spec) == block.attack
    found = run(net, x[:1], y[:1], spec, Threat("Linf", 1e-4))
    runs = block.attack.restarts_or_targets(10)
    assert not found.broken.any()
    assert (found.forwards + found.backwards <= block.passes * runs).all()


def test_a_small_budget_is_kept(right, run):
    net, x, y = right
    found = run(net, x[:6], y[:6], "adaptive:budget=400", Threat("Linf", 1e-3))
    spent = found.forwards + found.backwards
    assert not found.broken.any()
    assert (spent <= 400).all()
    assert (spent > 200).all()


def test_every_view_has_a_search():
    views = {
        VIEWS.name_of(stage.view)
        for stage in Adaptive().stages(Threat("Linf", 0.1), 10)
        if stage.view is not None
    }
    assert views == set(VIEWS.names())


def test_two_classes_and_other_norms_leave_out_what_cannot_work(right, run):
    members = {stage.member for stage in Adaptive().stages(Threat("Linf", 0.1), 2)}
    assert not {"apgd-t", "apgd-dlr"} & members
    assert {"md", "apgd-ce", "pma", "square", "rays"} <= members
    assert "rays" not in {stage.member for stage in Adaptive().stages(Threat("L2", 0.5), 10)}
    assert Adaptive().needs == 2
    net, x, y = right
    for threat in (Threat("L2", 1.5), Threat("L1", 6.0)):
        found = run(net, x[:6], y[:6], SMALL, threat)
        assert found.broken.any()
        assert threat.inside(found.x, x[:6]).all()


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
@pytest.mark.parametrize("classes", [2, 3, 4])
def test_it_runs_what_autoattack_runs_with_few_classes(norm, classes):
    threat = Threat(norm, 0.1)
    mine = [(stage.attack, stage.restart_or_target) for stage in Adaptive().stages(threat, classes)]
    for stage in AutoAttack().stages(threat, classes):
        assert (stage.attack, stage.restart_or_target) in mine, stage.member


def test_verdicts_do_not_depend_on_the_batch(right, run):
    net, x, y = right
    model = Masked(net, before=Killed.apply)
    x, y = x[:3], y[:3]
    whole = run(model, x, y, SMALL, LINF)
    few = run(model, x, y, SMALL, LINF, slots=2)
    for name in ("broken", "by", "step", "forwards", "backwards"):
        assert torch.equal(getattr(whole, name), getattr(few, name)), name
    assert "adaptive" in ATTACKS.names()
