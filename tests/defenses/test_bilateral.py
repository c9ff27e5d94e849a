"""Bilateral training: the moved image and the soft label."""

import math

import pytest
import torch
import torch.nn.functional as F

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.defenses import DEFENSES, Recipe, parse
from robustbench_cli.defenses._step import Passes, Step

EPS = 0.1
NOISE = Noise(0, torch.arange(6))


def step_of(model, batch):
    return Step(model=model, x=batch[0], y=batch[1], threat=Threat("Linf", EPS), noise=NOISE)


def labels_of(logits, y, **params):
    wrong = F.one_hot(y, logits.shape[1]) == 0
    return DEFENSES.build(Spec("bilateral", params)).labels(logits, wrong)


def label_by_hand(logits, y, beta=9.0, gamma=0.01):
    """Return one example's soft label, computed with plain numbers and loops."""
    total = sum(math.exp(z) for z in logits)
    unlikely = [-math.log(math.exp(z) / total + 1e-8) for z in logits]
    others = [k for k in range(len(logits)) if k != y]
    least = min(unlikely[k] for k in others)
    most = max(unlikely[k] for k in others)
    spread = sum(unlikely[k] - least + gamma for k in others)
    away = 1 / (1 + beta * (most - least + gamma) / spread)
    shares = [away * (v - least + gamma) / spread for v in unlikely]
    shares[y] = 1 - away
    return shares


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
@pytest.mark.parametrize(("beta", "gamma"), [(9.0, 0.01), (2.0, 0.5)])
def test_labels_equal_the_formula(scale, beta, gamma):
    logits, y = scale * torch.randn(40, 10).double(), torch.arange(40) % 10
    labels = labels_of(logits, y, beta=beta, gamma=gamma)
    by_hand = [
        label_by_hand(z, k, beta, gamma) for z, k in zip(logits.tolist(), y.tolist(), strict=True)
    ]
    torch.testing.assert_close(labels, torch.tensor(by_hand).double())
    torch.testing.assert_close(labels.sum(1), torch.ones(40).double())
    true = labels.gather(1, y[:, None]).squeeze(1)
    largest = labels.scatter(1, y[:, None], 0).amax(1)
    torch.testing.assert_close(true / largest, torch.full((40,), beta).double())
    least_likely = logits.scatter(1, y[:, None], float("inf")).argmin(1)
    # The formula's 1e-8 puts all of the very unlikely on a level.
    torch.testing.assert_close(labels.gather(1, least_likely[:, None]).squeeze(1), largest)


@pytest.mark.parametrize(("classes", "true"), [(10, 0.5), (4, 0.75), (2, 0.9)])
def test_with_equally_likely_classes_it_is_label_smoothing(classes, true):
    """1 - 1 / (1 + beta / (C - 1)): Feature Scattering's 0.5 with ten classes."""
    (label,) = labels_of(torch.zeros(1, classes).double(), torch.tensor([1]))
    expected = [(1 - true) / (classes - 1)] * classes
    expected[1] = true
    torch.testing.assert_close(label, torch.tensor(expected).double())


def test_a_large_ratio_leaves_the_hard_label():
    logits, y = torch.randn(8, 10).double(), torch.arange(8)
    labels = labels_of(logits, y, beta=1e12)
    torch.testing.assert_close(labels, F.one_hot(y, 10).double(), rtol=0, atol=1e-9)


def by_hand(model, x, y, beta):
    """Return image and loss: one step towards the most confusing class, and the soft criterion."""
    clean = model(x).detach()
    target = torch.tensor(
        [
            max((k for k in range(4) if k != label), key=lambda k, z=z: z[k])
            for z, label in zip(clean.tolist(), y.tolist(), strict=True)
        ]
    )
    assert (target != y).all()
    unit = 2 * NOISE.fork("start").uniform(x) - 1
    start = (x + EPS * unit).clamp(0, 1).requires_grad_()
    (slope,) = torch.autograd.grad(F.cross_entropy(model(start), target, reduction="sum"), start)
    moved = start.detach() - EPS * slope.sign()
    moved = torch.minimum(torch.maximum(moved, x - EPS), x + EPS).clamp(0, 1)
    pairs = zip(clean.tolist(), y.tolist(), strict=True)
    shares = torch.tensor([label_by_hand(z, k, beta) for z, k in pairs]).double()
    return moved, -(shares * model(moved).log_softmax(1)).sum(1).mean()


def test_loss_and_every_weight_gradient(model, batch):
    model.eval()
    moved, expected = by_hand(model, *batch, 5.0)
    objective = DEFENSES.build(Spec("bilateral", {"beta": 5.0}))
    step = step_of(model, batch)
    crafted = objective.crafted(step)
    torch.testing.assert_close(crafted["adv"], moved)
    loss = objective.loss(step, Passes(model, {"clean": step.x, **crafted})).mean()
    torch.testing.assert_close(loss, expected)
    params = list(model.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(loss, params), torch.autograd.grad(expected, params)
    )


def test_it_cannot_be_combined_with_label_smoothing():
    for other in ("label-smoothing", "mixup"):
        with pytest.raises(UserError, match=r"bilateral (makes soft labels|needs one label)"):
            Recipe.build(parse(f"bilateral+{other}")).check(10)
    Recipe.build(parse("bilateral+he+awp:warmup=0")).check(10)
