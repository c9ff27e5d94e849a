"""Every metric defense, its hand values, and what its attack does to the stated distance."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from robustbench_cli.core.gradient_ascent import Ascent
from robustbench_cli.core.threat import Threat
from robustbench_cli.metric_learning import METRIC_DEFENSES, RobustMetricDefense, Triplets
from robustbench_cli.metric_learning._losses import metric_loss
from robustbench_cli.metric_learning._perturbed import distances, moved, shifted
from robustbench_cli.metric_learning.act import nearness
from robustbench_cli.metric_learning.hm import hardness, shortfall
from robustbench_cli.metric_learning.one_role import _AIMS

NAMES = METRIC_DEFENSES.names()


def built(name, **params):
    cls = METRIC_DEFENSES.entry(name).cls
    few = {"steps": 2, "step": 0.5} if issubclass(cls, RobustMetricDefense) else {}
    return cls(**{**few, **params})


def test_the_published_forms_are_there():
    assert {"none", "one-role", "est", "act", "hm"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("loss", ["triplet", "contrastive"])
def test_a_defense_gives_a_loss_with_gradients_to_all_weights(name, loss, step):
    value = built(name, loss=loss).objective(step)
    assert value.shape == ()
    assert value.isfinite()
    value.backward()
    weights = list(step.model.parameters())
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in weights)
    assert any(weight.grad.abs().sum() > 0 for weight in weights)
    assert step.model.training


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_follows_from_the_key(name, step):
    copies = [replace(step, model=deepcopy(step.model)) for _ in range(2)]
    again = [built(name).objective(each).item() for each in copies]
    assert again[0] == again[1]
    other = replace(step, key=(0, 0, 1))
    assert built(name).objective(other).item() != again[0]


@pytest.mark.parametrize("name", NAMES)
def test_the_attack_does_not_move_batch_statistics(name, step):
    built(name, **({"steps": 4} if name != "none" else {})).objective(step)
    counted = [m.num_batches_tracked.item() for m in step.model.modules() if hasattr(m, "momentum")]
    assert set(counted) == {1}  # the one pass that has gradients


@pytest.mark.parametrize("role", ["anchor", "positive", "negative"])
def test_one_role_is_driven_the_way_that_raises_the_loss(role, step):
    z = step.clean_embeddings()
    chosen = Triplets(torch.arange(4), torch.arange(4) ^ 1, torch.arange(4) + 4)
    gain, references = _AIMS[role]
    rows = chosen._asdict()[role]
    climb = Ascent(steps=4, step=0.25, start="clean")
    noise, target = step.noise.only(rows), references(z, chosen)
    x_adv = moved(step.model, gain, target, step.x[rows], step.threat, noise, climb)
    step.model.eval()
    now = {**{k: z[v] for k, v in chosen._asdict().items()}, role: step.model(x_adv)}
    before = hardness(torch.cat([z[each] for each in chosen]))
    after = hardness(torch.cat([now[each] for each in Triplets._fields]))
    assert (after > before).all()
    assert step.threat.inside(x_adv, step.x[rows]).all()


def growing(x_of, distance, steps=6):
    """The distance after 0, 1, ... small steps."""
    return torch.stack([distance(x_of(count)) for count in range(1, steps + 1)])


def test_est_raises_the_stated_distance_with_every_small_step(step):
    step.model.eval()
    clean = step.clean_embeddings()

    def after(count):
        climb = Ascent(steps=count, step=0.02, start="clean")
        return shifted(step.model, clean, step.x, step.threat, step.noise, climb)

    found = growing(after, lambda x: distances(step.model(x), clean).detach())
    assert (found[0] > 0).all()
    assert (found.diff(dim=0) > 0).all()


def test_act_lowers_the_stated_distance_with_every_small_step(step):
    step.model.eval()
    pairs = torch.cat([torch.arange(4), torch.arange(4) + 4])
    clean = -nearness(step.model(step.x[pairs]), step.y).detach()

    def after(count):
        climb = Ascent(steps=count, step=0.02, start="clean")
        noise = step.noise.only(pairs)
        x = step.x[pairs]
        return moved(step.model, nearness, step.y, x, step.threat, noise, climb)

    found = growing(after, lambda x: -nearness(step.model(x), step.y).detach())
    assert (found[0] < clean).all()
    assert (found.diff(dim=0) < 0).all()


def test_hm_stops_where_the_wanted_hardness_is_reached():
    z = torch.tensor([[0.0, 0], [3, 0], [0, 1], [0, 4], [4, 0], [0, 2]]).view(6, 2)
    # Anchors (0,0) and (3,0); positives (0,1) and (0,4); negatives (4,0) and (0,2).
    assert hardness(z).tolist() == pytest.approx([1 - 4, 5 - 13**0.5])
    found = shortfall(z, torch.tensor([-1.0, 0.0]))
    assert found.tolist() == pytest.approx([-4.0, 0.0])


def test_hm_wants_what_the_loss_leaves(step):
    z = step.clean_embeddings()
    gradual = built("hm", target="gradual")
    for loss, wanted in ((0.0, 0.0), (0.05, -0.05), (3.0, -0.2)):
        found = gradual._wanted(replace(step, last_loss=torch.tensor(loss)), z, 2)
        assert found.tolist() == pytest.approx([wanted] * 2)


def test_hand_values_of_the_losses():
    z = torch.tensor([[0.0, 0], [0, 1], [0.5, 0]])  # anchor, positive at 1, negative at 0.5
    y, one = torch.tensor([0, 0, 1]), Triplets(*(torch.tensor([k, k]) for k in range(3)))
    assert metric_loss("triplet", 1.0, False)(z, y, one).item() == pytest.approx(1 - 0.5 + 1)
    assert metric_loss("contrastive", 1.0, False)(z, y, one).item() == pytest.approx(1 + 0.5)


def test_margins_are_those_of_the_papers():
    assert built("est").margin_for(True) == 0.2
    assert built("est").margin_for(False) == 1.0
    assert built("est", loss="contrastive").margin_for(True) == 1.0
    assert built("est", margin=0.3).margin_for(True) == 0.3


@pytest.mark.parametrize("name", [name for name in NAMES if name != "none"])
def test_without_a_radius_images_stay(name, step):
    """At eps 0 embeddings are those of clean images: nothing is perturbed."""
    still = replace(step, threat=Threat("Linf", 1e-12))
    climb = built(name).climb
    clean = step.clean_embeddings()
    x = shifted(step.model, clean, step.x, still.threat, step.noise, climb)
    step.model.eval()
    assert torch.allclose(step.model(x), clean, atol=1e-6)


def test_embeddings_have_norm_1(step):
    norms = step.clean_embeddings().norm(dim=1)
    assert torch.allclose(norms, torch.ones(len(norms)), atol=1e-6)
    assert torch.allclose(step.model(step.x).norm(dim=1), norms, atol=1e-6)
