"""Every registered attack against models that may reject an image."""

import pytest
import torch
from torch import nn

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.detectors import DETECTORS
from robustbench_cli.evaluation.batch_attack import attack_batch
from robustbench_cli.evaluation.detect import seen
from robustbench_cli.evaluation.detecting_model import with_detector
from robustbench_cli.evaluation.tensors import Tensors
from robustbench_cli.evaluation.verifier import unchanged_model
from robustbench_cli.models.rejecting import ModelWithRejectClass

SMALL = {
    **{"steps": 30, "queries": 600, "pairs": 20, "searches": 4, "restarts": 2, "targets": 3},
    "of": ("apgd-ce-20", "fab-t-20", "square-100"),
}
"""Enough of each parameter that an attack's cost depends on, where its default is larger."""


QUICK = {
    **{"steps": 10, "queries": 200, "pairs": 8, "searches": 2, "restarts": 2, "targets": 2},
    **{"least": 0.1, "epochs": 4},
    "of": ("apgd-ce-10", "fab-t-5", "square-50"),
}
"""Enough of each to break one image of several."""


def built(name, sizes=SMALL):
    defaults = {f: getattr(ATTACKS.entry(name).cls, f, None) for f in sizes}
    usable = {k: v for k, v in sizes.items() if ATTACKS.accepts(name, k)}
    return ATTACKS.build(
        Spec(name, {k: v for k, v in usable.items() if isinstance(v, tuple) or defaults[k] > v})
    )


def attacked(model, x, y, attack, eps):
    norm = attack.measures[0]
    radius = {"Linf": eps, "L2": eps * x[0].numel() ** 0.5, "L1": eps * x[0].numel()}
    radius |= {"patch": 4, "spatial": 1, "L0": 12}
    radius = radius[norm]
    threat = Threat(norm, radius)
    noise, others = Noise(0, torch.arange(len(y))), Tensors(x.flip(0), y.flip(0))
    found = attack_batch(model, x, y, attack, threat, noise, slots=64, fit_on=others)
    return found, found.broken & (found.norm <= radius * (1 + 1e-5))


class Net(nn.Module):
    """Five real classes and a reject class of a small net with features; x is (B, 1, 6, 6)."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(36, 24), nn.Tanh())
        self.head = nn.Linear(24, 6)

    def forward(self, x):
        return 4 * self.head(self.body(x))


def guarded_by(text, net, x):
    """The net and a detector that flags a fifth of such images."""
    detector = DETECTORS.build(Spec.parse(text))
    with unchanged_model(net):
        outputs = seen(net, Tensors(x, torch.zeros(len(x))), 64)
        known = detector.fit(outputs, outputs.prediction)
        return with_detector(net, detector, known, Tensors(x, outputs.prediction), 0.2, 64).eval()


@pytest.fixture(scope="module")
def planted(request):
    """A model that rejects, whether it rejects an image, and images that it is right about."""
    draw = torch.Generator().manual_seed(3)
    net = Net()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(0.4 * torch.randn(p.shape, generator=draw))
    x = torch.rand(440, 1, 6, 6, generator=draw)
    if request.param == "class":
        model, classes = ModelWithRejectClass(net, 5, 2), 5
        rejects = lambda x: net(x).argmax(1) == 2  # noqa: E731
    else:
        model, classes = guarded_by(request.param, net, x[40:]), 6

        def rejects(x):
            known = {name.removeprefix("known_"): each for name, each in model.named_buffers()}
            outputs = seen(net, Tensors(x, torch.zeros(len(x))), 64)
            return model.detector.suspicion(outputs, known) > model.threshold

    with torch.no_grad():
        prediction = model(x[:40]).argmax(1)
    accepted = prediction < classes
    assert 0 < int(accepted.sum()) < 40
    few = 8 if request.param == "class" else 5
    return model, rejects, x[:40][accepted][:few], prediction[accepted][:few]


DETECTED = ("gaussian", "knn5")
CASES = [
    (kind, name)
    for number, name in enumerate(ATTACKS.names())
    for kind in ("class", DETECTED[number % 2])
]
"""Every attack against a reject class and against a detector, the two detectors taking turns."""


@pytest.mark.parametrize(
    ("planted", "name"), sorted(CASES, key=lambda case: case[0]), indirect=["planted"]
)
def test_a_success_is_an_error_that_the_model_itself_does_not_reject(name, planted):
    model, rejects, x, y = planted
    attack = built(name, QUICK)
    # One change for all images needs more of it.
    found, broken = attacked(model, x, y, attack, 0.5 if attack.fits else 0.12)
    with torch.no_grad():
        wrong = model(found.x).argmax(1) != y
        assert broken.any()
        assert wrong[broken].all()
        assert not rejects(found.x)[broken].any()


class Guarded(nn.Module):
    """Five classes and, last, a reject class that is in the way of the first one.

    a and b are how far the left and the right part of the image are from grey, on average.  Where b
    rises, the wrong class 1 beats the true class 0, and the reject class beats both, unless a is
    below -0.03: an attack must lower a and raise b, while the surest error is to raise both.
    """

    def forward(self, x):
        inner = x[:, :, :-1, :-1]  # the official Square draws no small square at the last row
        a, b = (part.flatten(1).mean(1) - 0.5 for part in inner.split([3, 2], 3))
        true, dull = 0 * a, 0 * a - 4
        rejects = 30 * a + 20 * b - 0.1
        return torch.stack([true, 20 * b - 1, dull, dull - 0.1, dull - 0.2, rejects], 1)


def follows_the_logits(name):
    """Whether an attack takes several steps, each of which depends on the logits before it.

    Random corners and poses depend on nothing, random patches are often lucky, decision-based
    attacks depend on the predicted class alone, and what is fitted to other images on those.
    """
    attack = built(name)
    lucky = name in ("corners", "spatial", "lavan", "patch-pgd")
    blind = lucky or attack.access == "decision" or attack.fits
    learns = not blind and not getattr(attack, "taps", False)
    return learns and getattr(attack, "steps", 2) > 1


@pytest.mark.parametrize("name", [*filter(follows_the_logits, ATTACKS.names())])
def test_an_attack_goes_round_the_rejection_that_it_would_run_into(name):
    x, y = torch.full((6, 1, 6, 6), 0.5), torch.zeros(6, dtype=torch.long)
    plain, aiming = (
        attacked(model, x, y, built(name), 0.1)
        for model in (Guarded(), ModelWithRejectClass(Guarded(), 5, 5))
    )
    assert plain[1].all()  # of the net as it is the reject class is a class like any other
    assert Guarded()(plain[0].x).argmax(1).eq(5).sum() >= 5  # a random start may be lucky
    assert aiming[1].all()
    assert Guarded()(aiming[0].x).argmax(1).eq(1).all()
