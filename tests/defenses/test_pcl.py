"""Prototype conformity: hand-computed loss, the prototypes' updates, mixed batches, divergence."""

import copy
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from robustbench_cli.cli import main
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.defenses import Recipe, parse
from robustbench_cli.defenses._prototypes import Prototypes
from robustbench_cli.defenses._step import Setting, Step
from robustbench_cli.defenses.pcl import PCL
from robustbench_cli.models import MODELS, Shape

FEATURES = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]], dtype=torch.float64)
PROTOTYPES = torch.tensor([[1.0, 1.0], [0.0, -1.0], [3.0, 0.0]], dtype=torch.float64)
Y = torch.tensor([0, 1, 0])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"attract": 1, "repel": 1e-9}, [1, 4, 2]),  # mean 2.333333
        ({"attract": 0, "repel": 1}, [-3, -5.5, -9]),  # mean 5.833333
        ({"attract": 1, "repel": 1e-4}, [1 - 3e-4, 4 - 5.5e-4, 2 - 9e-4]),
        ({"attract": 1, "repel": 1, "variant": "paper"}, [-7, -9, -12]),
    ],
)
def test_the_loss_by_hand(settings, expected):
    """The same prototypes twice: the paper's formula has one set only."""
    found = PCL(**settings).conformity(FEATURES, PROTOTYPES, PROTOTYPES, Y)
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_the_own_term_vanishes_on_the_prototype_only():
    loss = PCL(repel=1e-12).conformity(PROTOTYPES[Y], PROTOTYPES, PROTOTYPES, Y)
    assert loss.tolist() == pytest.approx([0, 0, 0], abs=1e-9)


def trained(text, model, batch, lr=0.0, steps=1):
    """Return the network and its prototypes before and after some steps."""
    recipe = Recipe.build(parse(text))
    net = recipe.prepare(copy.deepcopy(model)).train()
    x, y = batch
    shape = Shape(1, 8, 8, 4, (0.2,), (0.7,))
    auxiliaries = recipe.auxiliaries(
        Setting(model=net, shape=shape, batch_size=6, fresh=lambda: net)
    )
    before = copy.deepcopy(auxiliaries["PCL"])
    step = Step(
        model=net,
        x=x,
        y=y,
        threat=Threat("Linf", 0.1),
        noise=Noise(0, torch.arange(len(x))),
        auxiliaries=dict(auxiliaries.items()),
    )
    optimizer = torch.optim.SGD(net.parameters(), lr)
    for epoch in range(steps):
        optimizer.zero_grad()
        with ExitStack() as release:
            result = recipe.backward(replace(step, epoch=epoch), release)
            optimizer.step()
    return net, before, auxiliaries["PCL"], result


def test_each_layer_has_prototypes_trained_by_plain_sgd(model, batch):
    """P moves by half of its gradient, Q by 1e-4 of the gradient of its mean distance."""
    net, before, after, result = trained("pcl:dim=5", model, batch)
    assert isinstance(after, Prototypes)
    x, y = batch
    first = net.features(x)  # with batch statistics, as in training
    layers = [first, net.head.dense(first)]
    assert [p.shape for p in after.near] == [(4, f.shape[1]) for f in layers]
    total = F.cross_entropy(net(x), y)
    for features, *points in zip(
        layers, before.near, before.far, after.near, after.far, strict=True
    ):
        near, far, near_after, far_after = points
        one_hot = F.one_hot(y, 4).to(features)
        pull = 2 / 6 * (one_hot.sum(0)[:, None] * near - one_hot.T @ features)
        rest = 1 - one_hot
        push = 2 / (6 * 3) * (rest.sum(0)[:, None] * far - rest.T @ features)
        torch.testing.assert_close(near_after, near - 0.5 * pull)
        torch.testing.assert_close(far_after, far + 1e-4 * push)  # away
        own = (features - near[y]).square().sum(1).mean()
        distances = (features[:, None] - far).square().sum(2)
        total = total + own - 1e-4 * (distances * rest).sum() / (6 * 3)
    torch.testing.assert_close(result.loss, total.detach())


@pytest.mark.parametrize("which", ["near", "far"])
def test_prototypes_begin_at_standard_normal_noise(which, model):
    """Mean, spread and the share within one: each within four standard errors."""
    net = PCL(dim=5000).prepare(model)
    drawn = torch.cat([p.detach().flatten() for p in getattr(Prototypes(net.head), which)])
    n = len(drawn)
    assert n > 20_000
    assert drawn.mean().abs() < 4 / n**0.5
    assert abs(drawn.std() - 1) < 4 / (2 * n) ** 0.5
    assert abs((drawn.abs() < 1).double().mean() - 0.682689) < 4 * (0.6827 * 0.3173 / n) ** 0.5


def test_gradients_reach_the_net_through_both_layers(model, batch):
    net, _, _, _ = trained("pcl:dim=5", model, batch)
    assert all(p.grad.abs().sum() > 0 for p in net.parameters())


def test_the_paper_s_form_moves_one_set_only(model, batch):
    _, before, after, _ = trained("pcl:dim=5,variant=paper,repel=0.5", model, batch)
    assert all(torch.equal(a, b) for a, b in zip(after.far, before.far, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(after.near, before.near, strict=True))


@pytest.mark.parametrize(("kind", "most"), [("fgsm", 51 / 32), ("pgd", 51 / 32)])
def test_the_adversarial_half_has_a_random_radius_per_batch(kind, most, model, batch):
    recipe = Recipe.build(parse(f"pcl:adversarial={kind}"))
    x, y = batch
    x = 0.4 + 0.2 * x  # away from the box
    net = recipe.prepare(model).eval()
    step = Step(model=net, x=x, y=y, threat=Threat("Linf", 0.1), noise=Noise(3, torch.arange(6)))
    reaches = []
    for number in range(40):
        clean, moved = recipe.objective.crafted(replace(step, batch=number))["both"].chunk(2)
        assert torch.equal(clean, x)
        reaches.append((moved - clean).abs().max().item() / 0.1)
    assert min(reaches) >= 51 / 80 - 1e-9
    assert max(reaches) <= most + 1e-9
    assert max(reaches) - min(reaches) > 0.5
    again = recipe.objective.crafted(step)["both"]
    assert torch.equal(again, recipe.objective.crafted(step)["both"])


def test_clean_and_moved_images_share_one_pass(model, batch):
    net, _, _, result = trained("pcl:dim=5,adversarial=fgsm", model, batch)
    norm = net.body.bn1
    assert int(norm.num_batches_tracked) == int(model.body.bn1.num_batches_tracked) + 1
    assert result.loss.isfinite()


@pytest.mark.parametrize("attract", [0.25, 4.0])
def test_the_weight_of_a_distance_does_not_change_its_prototypes_rate(attract, model, batch):
    """As in the code, which divides the prototypes' gradients by the weight."""
    found = []
    for text in ("pcl:dim=5", f"pcl:dim=5,attract={attract}"):
        torch.manual_seed(0)
        _, before, after, _ = trained(text, model, batch)
        found.append([a - b for a, b in zip(after.near, before.near, strict=True)])
    for plain, weighed in zip(*found, strict=True):
        assert plain.abs().max() > 0
        torch.testing.assert_close(weighed, plain)


def test_without_attraction_its_prototypes_stay(model, batch):
    _, before, after, _ = trained("pcl:dim=5,attract=0", model, batch)
    assert all(torch.equal(a, b) for a, b in zip(after.near, before.near, strict=True))


def test_a_head_that_is_not_linear_is_refused(model):
    recipe = Recipe.build(parse("pcl"))
    with pytest.raises(UserError, match="pcl widens a linear last layer"):
        recipe.prepare(Recipe.build(parse("mmc")).prepare(model))


def test_a_net_that_has_the_wide_layer_keeps_its_trained_one():
    """Training begins where ``resnet-110:dense=N`` ended: nothing is drawn anew."""
    shape = Shape(1, 8, 8, 4, (0.2,), (0.7,))
    net = MODELS.build(Spec.parse("resnet-110:blocks=1,width=2,dense=6")).build(shape)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    prepared = Recipe.build(parse("pcl:dim=6")).prepare(net)
    assert prepared is net
    assert {*prepared.state_dict()} == {*state}
    assert all(torch.equal(value, state[name]) for name, value in prepared.state_dict().items())
    widened = Recipe.build(parse("pcl:dim=6")).prepare(
        MODELS.build(Spec.parse("resnet-110:blocks=1,width=2")).build(shape)
    )
    assert {name: value.shape for name, value in widened.state_dict().items()} == {
        name: value.shape for name, value in state.items()
    }
    with pytest.raises(UserError, match="a layer of 6 features, not dim=1024"):
        Recipe.build(parse("pcl")).prepare(net)


SMALL = ["--set", "train.limit=200", "--set", "train.probe=20", "--set", "model.width=4"]


def command(out, *more, name="run", defense="pcl:dim=16"):
    return ["train", defense, *SMALL, "--out", str(out), "--name", name, "--quiet", *more]


def test_an_unbounded_loss_ends_training_in_one_line(tmp_path, capsys):
    text = "pcl:dim=16,variant=paper,repel=10000"
    assert main(command(tmp_path, "--epochs", "20", defense=text)) == 1
    err = capsys.readouterr().err
    assert "the training loss is not finite in epoch" in err
    assert err.count("\n") == 1


def test_resuming_restores_prototypes_bit_for_bit(tmp_path, monkeypatch):
    from robustbench_cli.training import checkpoint
    from robustbench_cli.training.trainer import Trainer

    epoch = Trainer.epoch

    def killed(self, number, *rest):
        if number == 2:
            raise KeyboardInterrupt
        return epoch(self, number, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "epoch", killed)
        assert main(command(tmp_path, "--epochs", "4", name="cut")) == 130
    assert main(["train", "--resume", "cut", "--out", str(tmp_path), "--quiet"]) == 0
    assert main(command(tmp_path, "--epochs", "4", name="whole")) == 0
    found = []
    for name in ("cut", "whole"):
        folder = Path(tmp_path) / name
        files = (
            checkpoint.load_tensors(folder / f"{kind}.safetensors")[0] for kind in ("aids", "model")
        )
        found.append({key: value for tensors in files for key, value in tensors.items()})
    assert {"PCL.near.0", "PCL.far.1", "head.dense.weight"} <= {*found[0]}
    assert all(torch.equal(value, found[1][key]) for key, value in found[0].items())
