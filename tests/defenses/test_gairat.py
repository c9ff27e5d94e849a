"""GAIRAT (Zhang et al., 2021): its counts, its weights, and the limits at which it is PGD-AT."""

import copy
import math
from contextlib import ExitStack
from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.threat import Threat
from robustbench_cli.defenses import Recipe, parse
from robustbench_cli.defenses._step import Passes, Step
from robustbench_cli.distributed.group import Shard

TABLE = {
    # (1 + tanh(lambda + 5 (1 - 2 kappa / K))) / 2 with a calculator.
    (-1.0, 10, 0): 0.999664649870,
    (-1.0, 10, 3): 0.880797077978,
    (-1.0, 10, 5): 0.119202922022,
    (-1.0, 10, 10): 6.14417460221e-6,
    (0.0, 10, 5): 0.5,
    (0.0, 10, 10): 4.53978687024e-5,
    (0.0, 5, 2): 0.880797077978,  # an odd K: the official code's K // 2 would make it 0.5
    (2.0, 4, 3): 0.268941421370,
}


def objective(text="gairat:warmup=0"):
    return Recipe.build(parse(text)).objective


def step_of(model, x, y, epoch=1000, **more):
    noise = Noise(0, torch.arange(len(x)))
    given = {"classes": 4, "threat": Threat("Linf", 0.1), "noise": noise, "epoch": epoch}
    return Step(model=model, x=x, y=y, **{**given, **more})


def images(model, n=24):
    """Images with the model's own labels, so that some fall early and some never."""
    x = torch.rand(n, 1, 8, 8).double()
    return x, model.eval()(x).argmax(1).detach()


def gradient(text, model, step):
    net = copy.deepcopy(model).train()
    with ExitStack() as moved:
        loss = Recipe.build(parse(text)).backward(replace(step, model=net), moved).loss
    return [loss, *(p.grad for p in net.parameters())]


@pytest.mark.parametrize(("shift", "steps", "kappa"), TABLE)
def test_the_weights_are_those_of_the_formula(shift, steps, kappa):
    part = objective(f"gairat:warmup=0,shift={shift},steps={steps}")
    omega = part.omega(torch.tensor([float(kappa)]).double())
    assert omega.item() == pytest.approx(TABLE[shift, steps, kappa], rel=1e-11)


def test_small_weights_keep_their_digits():
    """Where 1 + tanh is rounded to a multiple of 6e-8 in float32, or to nothing."""
    small = objective("gairat:warmup=0,shift=-5").omega(torch.tensor([10.0]))
    assert small.item() == pytest.approx(math.exp(-20) / (1 + math.exp(-20)), rel=1e-6)


def counted_by_hand(model, step, part):
    """The inner attack and its counts, written out; the last iterate is not looked at."""
    x_adv = part.climb.begin(step.x, step.threat, step.noise)
    kappa = [0] * len(step.x)
    for _ in range(part.steps):
        leaf = x_adv.clone().requires_grad_()
        logits = model(leaf)
        for i, answer in enumerate(logits.argmax(1).tolist()):
            kappa[i] += answer == int(step.y[i])
        (grad,) = torch.autograd.grad(F.cross_entropy(logits, step.y, reduction="sum"), leaf)
        x_adv = x_adv + part.step * step.threat.eps * grad.sign()
        x_adv = torch.minimum(torch.maximum(x_adv, step.x - 0.1), step.x + 0.1).clamp(0, 1)
    return x_adv, torch.tensor(kappa)


def test_the_loss_is_the_weighted_mean_written_out(model):
    part, (x, y) = objective(), images(model)
    step = step_of(model, x, y)
    x_adv, kappa = counted_by_hand(model, step, part)
    assert kappa.min() < 5 < kappa.max()  # some fall early, some late or never
    crafted = part.crafted(step)
    torch.testing.assert_close(crafted["adv"], x_adv, rtol=0, atol=1e-12)
    assert torch.equal(crafted["kappa"], kappa)
    losses = F.cross_entropy(model(x_adv), y, reduction="none").tolist()
    omega = [(1 + math.tanh(-1 + 5 * (1 - 2 * k / 10))) / 2 for k in kappa.tolist()]
    expected = sum(w * c for w, c in zip(omega, losses, strict=True)) / sum(omega)
    assert part.loss(step, Passes(model, crafted)).mean().item() == pytest.approx(expected)


def test_the_weights_of_a_batch_average_to_one(model):
    part, (x, y) = objective(), images(model)
    ones = replace(step_of(model, x, y), criterion=lambda logits, y: torch.ones(len(y)).double())
    weights = part.loss(ones, Passes(model, part.crafted(ones)))
    assert weights.mean().item() == pytest.approx(1)
    assert weights.std() > 0.5


def test_an_example_that_comes_back_is_counted_as_the_algorithm_counts_it():
    """Right, wrong, right again: two of the three iterates, though one step suffices."""

    class Turns(torch.nn.Module):
        seen = 0

        def forward(self, x):
            self.seen += 1
            right = 1.0 if self.seen != 2 else -1.0
            return torch.stack([right + 0 * x.sum((1, 2, 3)), x.sum((1, 2, 3)) * 0], 1)

    x, y = torch.rand(1, 1, 2, 2), torch.zeros(1, dtype=torch.long)
    crafted = objective("gairat:warmup=0,steps=3").crafted(step_of(Turns(), x, y))
    assert crafted["kappa"].tolist() == [2]


def test_with_a_large_lambda_it_is_pgd_at_with_the_same_attack(model):
    step = step_of(model, *images(model))
    pgd = gradient("pgd-at:step=7/31,attack_mode=eval", model, step)
    torch.testing.assert_close(gradient("gairat:warmup=0,shift=40", model, step), pgd)
    weighted = gradient("gairat:warmup=0", model, step)
    assert (weighted[1] - pgd[1]).norm() > 0.1 * pgd[1].norm()


def test_it_is_pgd_at_until_the_burn_in_is_over(model):
    batch = images(model)
    pgd = gradient("pgd-at:step=7/31,attack_mode=eval", model, step_of(model, *batch))
    weighted = gradient("gairat:warmup=0", model, step_of(model, *batch))
    for epoch, expected in ((0, pgd), (58, pgd), (59, weighted)):  # the official 60th is number 59
        actual = gradient("gairat", model, step_of(model, *batch, epoch))
        torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def test_examples_that_all_withstand_are_weighted_alike(model):
    """In a ball too small to mislead anybody, where every count is K."""
    x, y = images(model)
    step = replace(step_of(model, x, y), threat=Threat("Linf", 1e-9))
    pgd = gradient("pgd-at:step=7/31,attack_mode=eval", model, step)
    torch.testing.assert_close(gradient("gairat:warmup=0", model, step), pgd)


@dataclass(frozen=True)
class Beside(Shard):
    """One of two processes, whose sums the other adds to."""

    other: float = 0.0

    def all_reduce_sum_(self, tensors):
        for tensor in tensors:
            tensor.add_(self.other)


def test_two_processes_share_the_sum_of_the_weights(model):
    """Each has some of the rows, and its losses are those rows' of one process with all."""
    part, (x, y) = objective(), images(model)
    step = step_of(model, x, y)
    crafted = part.crafted(step)
    whole = part.loss(step, Passes(model, crafted))
    sums, halves = [], (slice(0, 5), slice(5, 24))
    for rows in halves:
        sums.append(part.omega(crafted["kappa"][rows].double()).sum().item())
    for rank, rows in enumerate(halves):
        mine = step_of(
            model, x[rows], y[rows], whole_size=24, shard=Beside(rank, 2, other=sums[1 - rank])
        )
        loss = part.loss(mine, Passes(model, {name: each[rows] for name, each in crafted.items()}))
        torch.testing.assert_close(loss, whole[rows])
    assert abs(sums[0] / 5 - sums[1] / 19) > 0.01  # a mean of its own would be another one


def test_the_attack_and_the_burn_in_are_the_official_ones():
    part = objective("gairat")
    assert (part.climb.start, part.climb.steps, part.climb.step) == ("uniform", 10, 7 / 31)
    assert (part.attack_mode, part.shift, part.warmup) == ("eval", -1.0, 59)


def test_a_burn_in_that_never_ends_is_refused():
    with pytest.raises(UserError, match=r"gairat would weigh nothing: .* 59 .* 20; .*warmup=0"):
        Recipe.build(parse("gairat")).check(20)
    Recipe.build(parse("gairat")).check(100)
    Recipe.build(parse("gairat:warmup=3+awp")).check(4)
