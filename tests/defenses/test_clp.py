"""Clean logit pairing and logit squeezing."""

import pytest
import torch
import torch.nn.functional as F

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.defenses import DEFENSES, Recipe, parse
from robustbench_cli.defenses._step import Passes, Step


def step_of(model, batch, ids=None):
    x, y = batch
    noise = Noise(0, torch.arange(len(x)) if ids is None else ids)
    return Step(model=model, x=x, y=y, threat=Threat("Linf", 0.1), noise=noise)


def losses(text, model, batch):
    """Return the loss of each example and the noisy images that it was computed on."""
    objective = Recipe.build(parse(text)).objective
    step = step_of(model, batch)
    crafted = objective.crafted(step)
    return objective.loss(step, Passes(model, {"clean": step.x, **crafted})), crafted["noisy"]


def gradients(model, loss):
    return torch.autograd.grad(loss, list(model.parameters()))


def clp_by_hand(logits, y, weight):
    first, second = logits[: len(y) // 2], logits[len(y) // 2 :]
    pairing = sum(((a - b) ** 2).sum() for a, b in zip(first, second, strict=True))
    return F.cross_entropy(logits, y) + weight * pairing / first.numel()


def lsq_by_hand(logits, y, weight):
    lengths = [(row**2).sum().sqrt() for row in logits]
    return F.cross_entropy(logits, y) + weight * sum(lengths) / len(y)


@pytest.mark.parametrize(("name", "by_hand"), [("clp", clp_by_hand), ("lsq", lsq_by_hand)])
def test_loss_and_every_weight_gradient(name, by_hand, model, batch):
    loss, noisy = losses(f"{name}:weight=0.7", model.eval(), batch)
    assert loss.shape == (6,)
    expected = by_hand(model(noisy), batch[1], 0.7)
    torch.testing.assert_close(loss.mean(), expected)
    torch.testing.assert_close(gradients(model, loss.mean()), gradients(model, expected))


def test_the_gradient_of_the_pairing_is_twice_the_gap_over_all_entries():
    logits = torch.randn(6, 4).double().requires_grad_()
    clp = DEFENSES.build(Spec("clp"))
    (grad,) = torch.autograd.grad(clp.logit_penalty(logits).mean(), logits)
    gap = (logits[:3] - logits[3:]).detach()
    torch.testing.assert_close(grad[:3], 2 * gap / gap.numel())
    torch.testing.assert_close(grad[3:], -2 * gap / gap.numel())


@pytest.mark.parametrize("count", [1, 2, 5, 6])
def test_identical_logits_have_no_penalty(count):
    same = torch.randn(1, 4).expand(count, 4)
    assert not DEFENSES.build(Spec("clp")).logit_penalty(same).any()


def test_in_an_odd_batch_no_example_is_paired_with_itself():
    logits = torch.eye(5).double()  # any two rows are 2 apart, a row from itself 0
    torch.testing.assert_close(
        DEFENSES.build(Spec("clp")).logit_penalty(logits), torch.full((5,), 2 / 5).double()
    )


def test_without_weight_and_noise_both_are_standard_training(model, batch):
    model.eval()
    standard = gradients(model, F.cross_entropy(model(batch[0]), batch[1]))
    for name in ("clp", "lsq"):
        loss, noisy = losses(f"{name}:weight=0,sigma=0", model, batch)
        assert torch.equal(noisy, batch[0])
        torch.testing.assert_close(gradients(model, loss.mean()), standard)


def test_noise_is_gaussian_clipped_and_follows_the_example(model):
    x = torch.full((400, 1, 8, 8), 0.5).double()
    y = torch.zeros(400, dtype=torch.long)
    _, noisy = losses("clp:sigma=0.1", model, (x, y))
    assert (noisy - x).mean().item() == pytest.approx(0, abs=0.003)
    assert (noisy - x).std().item() == pytest.approx(0.1, abs=0.003)
    _, wild = losses("clp", model, (x, y))
    assert wild.min() == 0
    assert wild.max() == 1
    assert (wild == 0).double().mean().item() == pytest.approx(0.1587, abs=0.01)  # beyond a sigma
    alone = DEFENSES.build(Spec("clp", {"sigma": 0.1})).crafted(
        step_of(model, (x[:3], y[:3]), torch.tensor([7, 300, 11]))
    )
    assert torch.equal(alone["noisy"], noisy[[7, 300, 11]])


def test_with_he_cosines_are_paired(model, batch):
    recipe = Recipe.build(parse("clp:weight=2+he:scale=15"))
    net = recipe.prepare(model).eval()
    step = step_of(net, batch)
    passes = Passes(net, recipe.objective.crafted(step))
    scored = recipe.objective.loss(step, passes)
    cosines = passes["noisy"] / 15
    gap = ((cosines - cosines.roll(3, 0)) ** 2).mean(1)
    torch.testing.assert_close(scored, step.criterion(passes["noisy"], step.y) + 2 * gap)
