"""Max-Mahalanobis centers: geometry, loss, gradient, and the objective of the inner attack."""

import copy
from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.defenses import DEFENSES, Recipe, parse
from robustbench_cli.defenses._centers import CenterHead, centers
from robustbench_cli.defenses._step import Passes, Step
from robustbench_cli.models import Classifier


def step_of(model, batch):
    x, y = batch
    noise = Noise(0, torch.arange(len(x)))
    threat = Threat("Linf", 0.1)
    return Step(model=model, x=x, y=y, classes=4, threat=threat, noise=noise)


def prepared(text, model):
    torch.manual_seed(1)
    return Recipe.build(parse(text)).prepare(copy.deepcopy(model)).double()


@pytest.mark.parametrize(
    ("classes", "dim"), [(2, 1), (3, 2), (4, 3), (10, 9), (10, 256), (100, 99)]
)
def test_the_gram_matrix_of_the_centers(classes, dim):
    known = centers(classes, dim)
    apart = torch.tensor(-1 / (classes - 1), dtype=torch.float64)
    gram = apart.expand(classes, classes).clone().fill_diagonal_(1)
    torch.testing.assert_close(known @ known.T, gram, rtol=0, atol=1e-12)
    torch.testing.assert_close(known.sum(0), torch.zeros(dim).double(), rtol=0, atol=1e-12)
    assert known[0, 0] == 1
    assert not known[0, 1:].any()


def test_too_few_dimensions_are_refused(model):
    with pytest.raises(UserError, match="4 classes need centers of at least 3 dimensions"):
        prepared("mmc:dim=2", model)


@pytest.mark.parametrize(("variant", "factor"), [("paper", 0.5), ("code", 1.0)])
def test_the_loss_is_zero_at_the_center_and_its_gradient_points_from_it(variant, factor):
    objective = DEFENSES.build(Spec("mmc", {"variant": variant}))
    head = CenterHead(6, 10 * centers(4, 6)).double()
    head.dense = nn.Identity()  # features are z
    y = torch.tensor([0, 1, 2, 3, 1])
    z = torch.randn(5, 6).double().requires_grad_()
    loss = objective.score(head(z), y)
    expected = factor * torch.stack([(z[i] - head.centers[y[i]]).square().sum() for i in range(5)])
    torch.testing.assert_close(loss, expected)
    (slope,) = torch.autograd.grad(loss.sum(), z)
    torch.testing.assert_close(slope, 2 * factor * (z.detach() - head.centers[y]))
    at_center = objective.score(head(head.centers[y]), y)
    assert at_center.tolist() == pytest.approx([0] * 5)
    assert head(head.centers).argmax(1).tolist() == [0, 1, 2, 3]


def test_answers_do_not_change_when_z_and_centers_are_scaled_together():
    z = torch.randn(50, 6).double()
    answers = []
    for scale in (1, 10, 100):
        head = CenterHead(6, scale * centers(4, 6)).double()
        head.dense = nn.Identity()
        answers.append(head(scale * z).argmax(1).tolist())
    assert answers[0] == answers[1] == answers[2]
    assert len(set(answers[0])) == 4


def by_hand(net, x, y, share):
    """Return clean and adversarial squared distances to the centers, written out in plain torch."""
    known, dense = net.head.centers, net.head.dense

    def away(images):
        z = net.body(net.normalize(images)) @ dense.weight.T + dense.bias
        return ((z - known[y]) ** 2).sum(1)

    start = step_of(net, (x, y))
    x_adv = start.threat.random_start(x, start.noise.fork("start"))
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.track_running_stats = False
    for _ in range(10):
        leaf = x_adv.clone().requires_grad_()
        (grad,) = torch.autograd.grad(away(leaf).sum(), leaf)
        x_adv = leaf.detach() + 0.025 * grad.sign()
        x_adv = torch.min(torch.max(x_adv, x - 0.1), x + 0.1).clamp(0, 1)
    for norm in norms:
        norm.track_running_stats = True
    loss = 0.5 * (share * away(x_adv) + (1 - share) * away(x)).mean()
    loss.backward()
    return loss.detach(), [p.grad for p in net.parameters()]


@pytest.mark.parametrize(
    ("text", "share"), [("mmc", 0.0), ("mmc-at", 1.0), ("mmc-at:share=0.3", 0.3)]
)
def test_loss_and_every_weight_gradient(text, share, model, batch):
    ours, theirs = prepared(text, model).train(), prepared(text, model).train()
    expected = by_hand(theirs, *batch, share)
    with ExitStack() as release:
        loss = Recipe.build(parse(text)).backward(step_of(ours, batch), release).loss
    torch.testing.assert_close((loss, [p.grad for p in ours.parameters()]), expected)


def test_a_targeted_attack_goes_towards_the_centers_it_drew(model, batch):
    net = prepared("mmc", model).eval()
    step = step_of(net, batch)
    step = replace(step, noise=Noise(0, torch.arange(6), "epoch 3"))
    drawn = (4 * step.noise.fork("target").uniform(step.x[:, 0, 0, 0])).long()
    assert len(set(drawn.tolist())) > 1
    objective = DEFENSES.build(Spec("mmc-at", {"targeted": True}))
    with torch.no_grad():
        near = net(objective.perturb(step))[range(6), drawn]
        far = net(step.x)[range(6), drawn]
    assert (near > far).all()


def test_mixed_labels_mix_distances(model, batch):
    net = prepared("mmc", model).eval()
    objective, logits = DEFENSES.build(Spec("mmc")), net(batch[0])
    one, other = (objective.score(logits, y) for y in (batch[1], batch[1].flip(0)))
    first, second = (F.one_hot(y, 4).double() for y in (batch[1], batch[1].flip(0)))
    mixed = objective.score(logits, 0.3 * first + 0.7 * second)
    torch.testing.assert_close(mixed, 0.3 * one + 0.7 * other)


def test_the_centers_are_saved_with_the_weights_and_never_learn(model):
    net = prepared("mmc:scale=7", model)
    assert isinstance(net, Classifier)
    known = net.state_dict()["head.centers"]
    assert known.norm(dim=1).tolist() == pytest.approx([7] * 4)
    assert not any("centers" in name for name, _ in net.named_parameters())
    assert Passes(net, {"clean": torch.rand(2, 1, 8, 8).double()})["clean"].shape == (2, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mmc+he", "mmc replaces the last layer, and so does he"),
        ("mmc-at+he", "mmc-at replaces the last layer, and so does he"),
        ("mmc+ls", "a loss of its own; label-smoothing would change"),
    ],
)
def test_combinations_that_make_no_sense_are_refused(text, message):
    with pytest.raises(UserError, match=message):
        Recipe.build(parse(text)).check(10)
