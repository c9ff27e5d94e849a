"""The attack on honeypots: its estimate, its images, and what the detector still sees of them."""

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robustbench_cli.attacks._signature import WIDEST, _freed
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.data import DATASETS
from robustbench_cli.defenses import Recipe, parse
from robustbench_cli.defenses._step import Setting, Step
from robustbench_cli.detectors import DETECTORS
from robustbench_cli.evaluation.detect import auroc, seen
from robustbench_cli.evaluation.detecting_model import with_detector
from robustbench_cli.evaluation.tensors import Tensors
from robustbench_cli.models import Classifier, Shape

LINF = Threat("Linf", 0.1)
WAYS = ("signature:steps=20,restarts=2", "signature:steps=20,restarts=2,way=orthogonal")


def small_net():
    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU())
    return Classifier(nn.Identity(), body, nn.Linear(64, 10))


@pytest.fixture(scope="module")
def honeypot():
    """A honeypot on the digits, its detector and what that was fitted to, and test images."""
    torch.manual_seed(0)
    digits = DATASETS.build(Spec("digits"))
    train, test = (digits.load(split, Path()) for split in ("train", "test"))
    net, recipe = small_net(), Recipe.build(parse("honeypot:mask=0.3"))
    shape = Shape(1, 8, 8, 10, (0.0,), (1.0,))
    aids = recipe.auxiliaries(Setting(model=net, shape=shape, batch_size=64, fresh=small_net))
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    for epoch in range(25):
        for rows in torch.randperm(len(train)).split(64):
            optimizer.zero_grad()
            step = Step(
                model=net,
                x=train.images(rows),
                y=train.y[rows],
                classes=10,
                threat=LINF,
                noise=Noise(0, rows, f"epoch {epoch}"),
                auxiliaries=dict(aids.items()),
            )
            with ExitStack() as until_stepped:
                recipe.backward(step, until_stepped)
                optimizer.step()
    net.eval().requires_grad_(False)
    detector = DETECTORS.build(Spec("trapdoor"))
    trapped = detector.training_data(train, aids.state_dict())
    known = detector.fit(seen(net, trapped, 512), trapped.y)
    return net, detector, known, test


def test_the_honeypot_took_the_trapdoors_in(honeypot):
    net, _, _, test = honeypot
    assert (seen(net, test, 512).prediction == test.y).float().mean() > 0.9


@pytest.mark.parametrize("text", WAYS)
def test_it_is_seen_less_than_pgd_at_the_same_accuracy(text, honeypot, run):
    net, detector, known, test = honeypot
    x, y = test.images(slice(50)), test.y[:50]
    clean = detector.suspicion(seen(net, Tensors(x, y), 64), known).numpy()
    broken, areas = [], []
    for attack in ("pgd20:step=0.1", text):
        found = run(net, x, y, attack, LINF, early_stop=False)
        under = seen(net, Tensors(found.x, y), 64)
        suspicion = detector.suspicion(under, known)[found.broken].numpy()
        flags = np.repeat([False, True], [len(clean), len(suspicion)])
        areas.append(auroc(np.concatenate([clean, suspicion]), flags))
        broken.append(found.broken.sum())
    assert broken[1] == broken[0] > 45
    assert areas[0] > 0.55
    assert areas[1] < areas[0] - 0.3


def test_the_estimate_points_where_the_trapdoor_leads(honeypot, run, build):
    """The cosine of the estimate and the detector's own signature of the class, which is secret."""
    net, _, known, test = honeypot
    x, y = test.images(slice(20)), test.y[:20]
    state = estimated(net, x, y, build("signature:steps=20"))
    signature = state["signature"][:, :64]
    alike = F.cosine_similarity(signature[:, None], known["signatures"][None], dim=2)
    own = alike.gather(1, state["class"][:, None]).squeeze(1)
    assert (own > alike.mean(1) + 0.1).float().mean() > 0.8
    assert (state["class"] != y).all()
    assert state["signature"][:, 64:].abs().max() == 0


def estimated(net, x, y, attack):
    """The state when the estimate is complete, without the engine's slots."""
    from robustbench_cli.attacks import Task
    from robustbench_cli.evaluation.search_model import exact_search_model

    noise = Noise(0, torch.arange(len(y))).fork("restart 0")
    task = Task(
        x=x, y=y, clean=net(x), threat=LINF, noise=noise, restart_or_target=0, data=Tensors(x, y)
    )
    state = attack.begin(task)
    for index in range(attack.examples * (attack.steps + 1)):
        assert LINF.inside(state["x"], state["center"]).all()
        look, *_ = exact_search_model(net).observe(attack, state, task, y * 0 + index)
        state = attack.move(state, look, task)
    assert torch.equal(state["center"], x)
    assert LINF.inside(state["x"], x).all()
    return state


@pytest.mark.parametrize("text", WAYS)
def test_errors_that_a_detector_misses_are_found_where_it_is_in_the_way(text, honeypot, run):
    """The detector beside the model: only an error that it accepts is a success."""
    net, detector, known, test = honeypot
    held_out = test.only(slice(100, 500))
    both = with_detector(net, detector, known, held_out, 0.05, 64).eval()
    x, y = test.images(slice(30)), test.y[:30]
    found = run(both, x, y, text, LINF)
    right = both(x).argmax(1) == y
    assert found.broken[right].float().mean() > 0.8
    logits = both(found.x[found.broken])
    assert (logits.argmax(1) != y[found.broken]).all()
    assert (logits.argmax(1) != 10).all()


def test_only_the_image_at_the_end_counts(build):
    for text in WAYS:
        attack = build(text)
        per_step = 2 if attack.way == "orthogonal" else 1
        last = 3 * 21 + per_step * 20 + 1
        at = torch.tensor([0, 63, last - 1, last])
        assert attack.counts({}, at).tolist() == [False, False, False, True]
        assert attack.over({}, at).tolist() == [False, False, False, True]


def test_gradients_are_freed_of_each_other():
    grad, other = torch.randn(2, 5, 1, 4, 4).double()
    found = _freed(grad, other)
    assert (found * other).flatten(1).sum(1).abs().max() < 1e-12
    along = F.normalize(other.flatten(1)).view_as(other)
    kept = grad - (grad * along).flatten(1).sum(1).view(-1, 1, 1, 1) * along
    torch.testing.assert_close(found, kept)
    assert torch.equal(_freed(grad, torch.zeros_like(other)), grad)


def test_models_with_too_many_features_are_refused(run):
    body = nn.Sequential(nn.Flatten(), nn.Linear(64, WIDEST + 1))
    net = Classifier(nn.Identity(), body, nn.Linear(WIDEST + 1, 3)).eval()
    with pytest.raises(UserError, match="attack 'signature' reads at most 8192 features"):
        run(net, torch.rand(2, 1, 8, 8), net(torch.rand(2, 1, 8, 8)).argmax(1), "signature")
