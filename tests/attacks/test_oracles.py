"""PGD, FGSM and CW against a straight-line float64 reference and the official AutoAttack."""

import pytest
import torch
import torch.nn.functional as F

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.noise import Noise
from robustbench_cli.registry import Spec
from robustbench_cli.threat import Threat

EPS = 0.06


def reference(model, x, y, start, norm, loss, steps, step):
    """Thirty lines from the formulas, one example at a time, nothing shared with the package."""
    results = []
    for image, label, begun in zip(x, y, start, strict=True):
        z = begun.clone()
        broken = None
        for _ in range(steps + 1):
            leaf = z.clone().requires_grad_()
            logits = model(leaf[None])[0]
            if broken is None and logits.argmax() != label:
                broken = leaf.detach().clone()
            wrong = torch.cat([logits[:label], logits[label + 1 :]]).max()
            value = {
                "ce": -torch.log_softmax(logits, 0)[label],
                "cw": -torch.clamp(logits[label] - wrong + 50, min=0),
            }[loss]
            (g,) = torch.autograd.grad(value, leaf)
            last = z
            if norm == "Linf":
                z = z + step * EPS * g.sign()
                z = torch.max(torch.min(z, image + EPS), image - EPS)
            else:
                z = z + step * EPS * g / (g.norm() + 1e-10)
                if (z - image).norm() > EPS:
                    z = image + (z - image) * EPS / (z - image).norm()
            z = z.clamp(0, 1)
        results.append(last if broken is None else broken)
    return torch.stack(results)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize(("name", "loss"), [("pgd", "ce"), ("cw", "cw"), ("fgsm", "ce")])
def test_iterates_match_the_reference(name, loss, norm, model):
    model.eval()
    x = torch.rand(24, 1, 8, 8).double()
    y = model(x).argmax(1)
    threat, noise = Threat(norm, EPS), Noise(3, torch.arange(24))
    params = {} if name == "fgsm" else {"steps": 7, "step": 0.3}
    attack = ATTACKS.build(Spec(name, params))
    source = noise.fork("restart 0").fork("start")
    start = x if attack.start == "clean" else threat.random_start(x, source)
    expected = reference(model, x, y, start, norm, loss, attack.steps, attack.step)
    found = attack(model, x, y, threat, noise)
    torch.testing.assert_close(found.x, expected, rtol=0, atol=1e-9)
    assert torch.equal(found.step >= 0, model(expected).argmax(1) != y)
    if name != "fgsm":
        assert 0 < (found.step >= 0).sum() < 24  # the case decides something


def test_autoattack_s_flags_are_the_package_s_and_contain_ours(digits_model):
    """The ensemble through our contract equals pyautoattack called directly; ours break less."""
    import pyautoattack

    model, x, y = digits_model
    threat = Threat("Linf", 0.1)
    noise = Noise(0, torch.arange(len(x)))
    standing = model(x).argmax(1) == y
    x, y, noise = x[standing], y[standing], noise.only(standing)
    ours = ATTACKS.build(Spec("autoattack"))(model, x, y, threat, noise)
    official = pyautoattack.AutoAttack(model, norm="Linf", eps=0.1, seed=0, version="standard")
    official.verbose = False
    with torch.no_grad():
        theirs, _ = official.run_standard_evaluation(x, y, batch_size=len(x))
        flags, expected = (model(z).argmax(1) == y for z in (ours.x, theirs))
    assert torch.equal(flags, expected)
    pgd = ATTACKS.build(Spec("pgd", {"steps": 100, "restarts": 2}))(model, x, y, threat, noise)
    cw = ATTACKS.build(Spec("cw", {"steps": 100}))(model, x, y, threat, noise)
    survive = (pgd.step < 0) & (cw.step < 0)
    share, exact = survive.double().mean(), flags.double().mean()
    assert exact <= share + 0.01
    assert share - exact < 0.12
    assert F.cross_entropy(model(pgd.x), y) > F.cross_entropy(model(x), y)
