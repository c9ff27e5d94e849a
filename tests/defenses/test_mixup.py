"""mixup: one share per batch for images and labels, and an attack on the mixture."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.losses import cross_entropy
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.defenses import DEFENSES, Recipe, parse
from robustbench_cli.defenses._step import Passes, Step


def mixup(alpha=1.0):
    return DEFENSES.build(Spec("mixup", {"alpha": alpha}))


@pytest.fixture
def step(model, batch):
    x, _ = batch
    return Step(
        model=model.eval(),
        x=x[:4],
        y=torch.arange(4),
        classes=4,
        threat=Threat("Linf", 0.1),
        noise=Noise(0, torch.arange(4)),
    )


def parts(mixed):
    """Return the share and each image's partner, read from the labels, which are all different."""
    share = float(mixed.y.diagonal().min())  # one that is its own partner has all of it
    other = (mixed.y - share * torch.eye(4)).argmax(1)
    return share, other


def test_images_and_labels_are_mixed_alike(step):
    mixed = mixup(1.4).inputs(replace(step, batch=3))
    share, other = parts(mixed)
    assert 0 < share < 1
    assert sorted(other.tolist()) == [0, 1, 2, 3]
    assert not torch.equal(other, torch.arange(4))
    torch.testing.assert_close(mixed.x, share * step.x + (1 - share) * step.x[other])
    torch.testing.assert_close(mixed.y.sum(1), torch.ones(4).double())


def test_the_loss_is_the_mixture_of_both_losses(step):
    """Zhang et al. write lam CE(y) + (1 - lam) CE(y'); Rice et al. climb and descend just that."""
    recipe = Recipe.build(parse("pgd-at:steps=1,step=1,start=clean,attack_mode=eval+mixup"))
    mixed = recipe.modifiers[0].inputs(replace(step, batch=3))
    share, other = parts(mixed)

    def by_hand(logits):
        return share * F.cross_entropy(logits, step.y) + (1 - share) * F.cross_entropy(
            logits, step.y[other]
        )

    x = mixed.x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(by_hand(step.model(x)), x)
    expected = (mixed.x + 0.1 * grad.sign()).clamp(0, 1)
    x_adv = recipe.objective.perturb(mixed)
    torch.testing.assert_close(x_adv, expected)
    passes = Passes(step.model, {"adv": x_adv})
    loss = recipe.objective.loss(mixed, passes).mean()
    torch.testing.assert_close(loss, by_hand(step.model(expected)))


def test_alpha_zero_leaves_the_batch_and_a_small_one_hardly_mixes(step):
    assert mixup(0).inputs(step) is step
    shares = [parts(mixup(1e-3).inputs(replace(step, batch=i)))[0] for i in range(40)]
    assert all(min(share, 1 - share) < 1e-3 for share in shares)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 1.4])
def test_shares_are_beta_distributed(alpha, step):
    six = replace(step, x=torch.rand(6, 1, 1, 1), y=torch.arange(6), classes=6)
    mixed = [mixup(alpha).inputs(replace(six, batch=i)).y.diagonal().min() for i in range(2000)]
    shares = torch.tensor([float(share) for share in mixed if share < 1])  # some keep to themselves
    assert len(shares) > 1900
    assert shares.mean().item() == pytest.approx(0.5, abs=0.03)
    assert shares.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.08)


def test_a_mixture_is_keyed_by_seed_epoch_and_batch(step):
    def made(**changes):
        torch.manual_seed(len(changes))  # torch's own generators have no say
        return mixup().inputs(replace(step, **changes))

    same = made(epoch=1, batch=2)
    again = made(epoch=1, batch=2, update_index=3)
    assert torch.equal(same.x, again.x)
    assert torch.equal(same.y, again.y)
    for other in ({"epoch": 2}, {"batch": 3}, {"noise": Noise(1, torch.arange(4))}):
        assert not torch.equal(made(**{"epoch": 1, "batch": 2, **other}).y, same.y)


def test_a_mixture_stays_in_the_box(step):
    edges = (step.x > 0.5).float()
    for i in range(50):
        mixed = mixup(0.3).inputs(replace(step, x=edges, batch=i)).x
        assert mixed.min() >= 0
        assert mixed.max() <= 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mart+mixup", "mart needs one label per image"),
        ("pgd-at+awp+mixup", "awp's code refuses mixed labels"),
        ("trades+mixup+awp:warmup=0", "awp's code refuses mixed labels"),
    ],
)
def test_incompatible_parts_are_refused(text, message):
    with pytest.raises(UserError, match=message):
        Recipe.build(parse(text)).check(100)


def test_smoothing_and_margins_work_on_mixed_labels(step):
    mixed = mixup().inputs(replace(step, batch=3))
    logits = torch.randn(4, 4).double()
    smooth = DEFENSES.build(Spec("ls", {"amount": 0.1})).criterion(cross_entropy)
    target = 0.9 * mixed.y + 0.1 / 4
    torch.testing.assert_close(smooth(logits, mixed.y), cross_entropy(logits, target))
    he = DEFENSES.build(Spec("he", {"scale": 15, "margin": 0.2})).criterion(cross_entropy)
    shifted = logits - 15 * 0.2 * mixed.y
    torch.testing.assert_close(he(logits, mixed.y), cross_entropy(shifted, mixed.y))
