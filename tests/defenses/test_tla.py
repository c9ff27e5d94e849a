"""Triplets around adversarial images: hand-computed loss, positives and negatives, limits."""

import copy
from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.threat import Threat
from robustbench_cli.data import Split
from robustbench_cli.data.bank import Bank
from robustbench_cli.defenses import Recipe, parse
from robustbench_cli.defenses._mining import most_similar_other_class
from robustbench_cli.defenses._step import Passes, Step
from robustbench_cli.defenses.tla import TLA
from robustbench_cli.models.taps import embedding

A = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
P = torch.tensor([[1.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
N = torch.tensor([[-1.0, 0.5], [3.0, 1.0]], dtype=torch.float64)


@pytest.fixture
def step(model, batch):
    """Return a step with a bank of forty other images."""
    x, y = batch
    bank = Bank(Split((torch.rand(40, 1, 8, 8) * 255).byte(), torch.arange(40) % 4, tuple("abcd")))
    noise = Noise(0, torch.arange(len(x)))
    return Step(model=model.train(), x=x, y=y, threat=Threat("Linf", 0.1), noise=noise, bank=bank)


def test_hinge_and_norm_by_hand():
    """d_pos 0.292893 and 0, d_neg 0.105573 and 0.683772: without |cos| the first is 1.894427."""
    hinge = TLA(weight=1, norm=0).triplet(A, P, N)
    assert hinge.tolist() == pytest.approx([0.292893 - 0.105573 + 0.03, 0], abs=1e-6)
    assert hinge.mean().item() == pytest.approx(0.108660, abs=1e-6)
    both = TLA(weight=1, norm=1).triplet(A, P, N)
    assert (both - hinge).mean().item() == pytest.approx(4.8125)


@pytest.mark.parametrize(
    ("variant", "expected"), [("code", 2 * 0.5 * 4.8125), ("paper", 0.5 * 4.8125)]
)
def test_whether_the_first_weight_multiplies_the_norm(variant, expected):
    with_norm = TLA(weight=2, norm=0.5, variant=variant).triplet(A, P, N)
    assert (with_norm - TLA(weight=2, norm=0).triplet(A, P, N)).mean().item() == pytest.approx(
        expected
    )


@pytest.mark.parametrize("which", [0, 1, 2])
def test_the_hinge_does_not_depend_on_norms(which):
    features = [A, P, N]
    features[which] = 7 * features[which]
    found = TLA(norm=0).triplet(*features)
    torch.testing.assert_close(found, TLA(norm=0).triplet(A, P, N))


@pytest.mark.parametrize("anchor", ["adversarial", "clean"])
@pytest.mark.parametrize("positives", ["other", "both"])
def test_the_loss_is_the_sum_of_its_triplets(anchor, positives, step):
    step.model.eval()
    objective = TLA(steps=2, step=0.5, anchor=anchor, positives=positives)
    inputs = objective.crafted(step)
    found = objective.loss(step, Passes(step.model, inputs, objective.taps))
    adv, negative, other, own = (
        embedding(step.model, inputs[name]) for name in ("adv", "negative", "other", "own")
    )
    expected = F.cross_entropy(step.model(inputs["adv"]), step.y, reduction="none")
    for positive in (other, own) if positives == "both" else (other,):
        pair = (adv, positive) if anchor == "adversarial" else (positive, adv)
        expected = expected + objective.triplet(*pair, negative)
    torch.testing.assert_close(found, expected)


def test_positives_are_of_the_class_and_the_own_one_is_in_the_ball(step):
    inputs = TLA(steps=1, step=1.0).crafted(step)
    images = step.bank.images(slice(None)).to(step.x)
    where = (inputs["other"][:, None] == images).flatten(2).all(2).int().argmax(1)
    assert (step.bank.labels(where) == step.y).all()
    assert step.threat.inside(inputs["own"], step.x).all()
    assert not torch.equal(inputs["own"], step.x)


def test_the_mined_image_is_the_most_similar_of_another_class(step):
    """Against a search over the whole bank, one by one."""
    rows = most_similar_other_class(step, step.x, size=40)
    assert (step.bank.labels(rows) != step.y).all()
    with torch.no_grad():
        net = copy.deepcopy(step.model).eval()
        mine = embedding(net, step.x)
        theirs = embedding(net, step.bank.images(slice(None)).to(step.x))
    for i, row in enumerate(rows.tolist()):
        alike = F.cosine_similarity(mine[i : i + 1], theirs)
        best = max(
            (j for j in range(40) if step.bank.labels(j) != step.y[i]),
            key=lambda j: alike[j].item(),
        )
        assert row == best


def test_the_negative_is_mined_after_the_attack(step):
    """Most like the attacked image; for some the clean one has another neighbour."""
    step = replace(step, model=step.model.eval(), threat=Threat("Linf", 0.3))
    inputs = TLA(steps=3, step=1.0, bank=40).crafted(step)
    after, before = (most_similar_other_class(step, x, size=40) for x in (inputs["adv"], step.x))
    assert torch.equal(inputs["negative"], step.bank.images(after).to(step.x))
    assert not torch.equal(after, before)


@pytest.mark.parametrize("size", [1, 2, 3, 500])
@pytest.mark.parametrize("negative", ["semi-hard", "random"])
def test_a_negative_never_has_the_image_s_class(step, size, negative):
    images = step.bank.images(slice(None)).to(step.x)
    for epoch in range(20):
        objective = TLA(steps=1, step=1.0, bank=size, negative=negative)
        inputs = objective.crafted(replace(step, epoch=epoch))
        where = (inputs["negative"][:, None] == images).flatten(2).all(2).int().argmax(1)
        assert (step.bank.labels(where) != step.y).all()


def test_mining_leaves_running_statistics_and_the_mode_alone(step):
    before = {k: v.clone() for k, v in step.model.state_dict().items()}
    most_similar_other_class(step, step.x, size=10)
    assert all(torch.equal(v, before[k]) for k, v in step.model.state_dict().items())
    assert all(m.training for m in step.model.modules())


def test_without_triplets_it_is_pgd_at_bit_for_bit(step):
    after = []
    for text in ("tla:weight=0", "pgd-at:steps=7,attack_mode=eval"):
        net = copy.deepcopy(step.model).float()
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        for epoch in range(3):
            now = replace(step, model=net, x=step.x.float(), epoch=epoch)
            optimizer.zero_grad()
            with ExitStack() as release:
                Recipe.build(parse(text)).backward(now, release)
                optimizer.step()
        after.append(net.state_dict())
    assert all(torch.equal(v, after[1][k]) for k, v in after[0].items())


def test_mixed_labels_are_refused():
    with pytest.raises(UserError, match="tla needs one label per image"):
        Recipe.build(parse("tla+mixup")).check(10)
