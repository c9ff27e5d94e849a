"""PGD, FGSM and CW against a straight-line float64 reference that shares nothing with them."""

import pytest
import torch

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.batch_attack import attack_batch

EPS = 0.06


def reference(model, x, y, start, norm, loss, steps, step):
    """Thirty lines from the formulas, one example at a time, nothing shared with the package.

    The image that counts is the first wrong one, else the one that came closest to being wrong.
    """
    results, looks = [], []
    for image, label, begun in zip(x, y, start, strict=True):
        z, seen = begun.clone(), []
        for _ in range(steps + 1):
            leaf = z.clone().requires_grad_()
            logits = model(leaf[None])[0]
            rest = torch.cat([logits[:label], logits[label + 1 :]])
            wrong, shares = rest.max(), torch.softmax(rest, 0)
            true = torch.softmax(logits, 0)[label]
            coded = shares * (1 - true) / (1 - true + 1e-7)
            seen.append(((wrong - logits[label]).item(), leaf.detach().clone()))
            value = {
                "ce": -torch.log_softmax(logits, 0)[label],
                "cw": -torch.clamp(logits[label] - wrong + 50, min=0),
                "gce": true ** (1 / 3) * (shares * shares.log()).sum(),
                "gce-code": (true + 1e-7) ** 0.333 * (coded * (coded + 1e-10).log()).sum(),
            }[loss]
            (g,) = torch.autograd.grad(value, leaf)
            if norm == "Linf":
                z = z + step * EPS * g.sign()
                z = torch.max(torch.min(z, image + EPS), image - EPS)
            else:
                z = z + step * EPS * g / (g.norm() + 1e-10)
                if (z - image).norm() > EPS:
                    z = image + (z - image) * EPS / (z - image).norm()
            z = z.clamp(0, 1)
        broken = next((i for i, (gap, _) in enumerate(seen) if gap > 0), None)
        best = max(range(len(seen)), key=lambda i: seen[i][0]) if broken is None else broken
        results.append(seen[best][1])
        looks.append(-1 if broken is None else broken)
    return torch.stack(results), torch.tensor(looks)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize(
    ("name", "loss"),
    [("pgd", "ce"), ("cw", "cw"), ("fgsm", "ce"), ("pgd", "gce"), ("pgd", "gce-code")],
)
def test_iterates_match_the_reference(name, loss, norm, model):
    model.eval()
    x = torch.rand(24, 1, 8, 8).double()
    y = model(x).argmax(1)
    threat, noise = Threat(norm, EPS), Noise(3, torch.arange(24))
    params = {} if name == "fgsm" else {"steps": 7, "step": 0.3, "climbs": loss}
    attack = ATTACKS.build(Spec(name, params))
    source = noise.fork(name).fork("restart 0").fork("start")
    start = x if attack.start == "clean" else threat.random_start(x, source)
    expected, step = reference(model, x, y, start, norm, loss, attack.steps, attack.step)
    found = attack_batch(model, x, y, attack, threat, noise, slots=10)
    torch.testing.assert_close(found.x, expected, rtol=0, atol=1e-9)
    assert torch.equal(found.step.long(), step)
    assert torch.equal(found.broken, model(expected).argmax(1) != y)
    if name != "fgsm":
        assert 0 < found.broken.sum() < 24  # the case decides something


def test_a_second_restart_begins_elsewhere_and_keeps_what_the_first_broke(model):
    model.eval()
    x = torch.rand(24, 1, 8, 8).double()
    y = model(x).argmax(1)
    threat, noise = Threat("Linf", EPS), Noise(3, torch.arange(24))
    attack = ATTACKS.build(Spec("pgd", {"steps": 4, "step": 0.4, "restarts": 2}))
    runs = []
    for restart_or_target in range(2):
        source = noise.fork("pgd").fork(f"restart {restart_or_target}").fork("start")
        start = threat.random_start(x, source)
        runs.append(reference(model, x, y, start, "Linf", "ce", attack.steps, attack.step))
    found = attack_batch(model, x, y, attack, threat, noise)
    (first, one), (second, two) = runs
    assert torch.equal(found.broken, (one >= 0) | (two >= 0))
    fell = one >= 0
    torch.testing.assert_close(found.x[fell], first[fell], rtol=0, atol=1e-9)
    later = ~fell & (two >= 0)
    torch.testing.assert_close(found.x[later], second[later], rtol=0, atol=1e-9)
    assert torch.equal(found.by.long(), torch.where(fell, 0, torch.where(later, 1, -1)))
