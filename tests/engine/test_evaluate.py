"""The judge trusts nobody."""

import copy

import pytest
import torch

from robustbench_cli.ascent import Crafted
from robustbench_cli.attacks import ATTACKS, Attack
from robustbench_cli.data import Split
from robustbench_cli.engine.evaluate import Meter, evaluate, examine, judging
from robustbench_cli.errors import RunError, UserError
from robustbench_cli.noise import Noise
from robustbench_cli.registry import Spec
from robustbench_cli.threat import Threat

THREAT = Threat("Linf", 0.05)


def split(n=40, classes=4):
    images = torch.randint(0, 256, (n, 1, 8, 8), dtype=torch.uint8)
    return Split(images, torch.zeros(n, dtype=torch.long), tuple("abcd"[:classes]))


def labelled(model, data):
    """The data with the model's own predictions as labels: everything is standing."""
    with judging(model), torch.no_grad():
        y = model(data.images(slice(None))).argmax(1)
    return Split(data.x, y, data.classes)


def verdicts(model, data, attack, threat=THREAT, size=16, seed=0, order=None):
    """All batches joined, in the data's own order."""
    noise = Noise(seed, torch.arange(len(data)))
    batches = [slice(i, min(i + size, len(data))) for i in range(0, len(data), size)]
    with judging(model), torch.no_grad():
        clean = model(data.images(slice(None))).argmax(1)
    results = {
        rows.start: found
        for rows, found in evaluate(
            model,
            data,
            attack,
            threat,
            noise=noise,
            clean=clean,
            batches=batches if order is None else [batches[i] for i in order],
        )
    }
    joined = [results[key] for key in sorted(results)]
    return {
        name: torch.cat([getattr(v, name) for v in joined])
        for name in ("prediction", "norm", "step")
    } | {"forwards": sum(v.forwards for v in joined), "backwards": sum(v.backwards for v in joined)}


class Cheat(Attack):
    """Anything at all."""

    def __init__(self, x):
        self._x = x

    def __call__(self, model, x, y, threat, noise):
        return Crafted(torch.full_like(x, self._x), torch.zeros_like(y))


def test_an_attack_that_leaves_the_ball_is_brought_back(model):
    data = labelled(model.float(), split())
    found = verdicts(model, data, Cheat(7.0))
    assert (found["norm"] <= THREAT.eps + 1e-6).all()
    assert (found["norm"] > 0).all()


def test_a_success_that_float32_does_not_confirm_is_none(model):
    """Cheat claims step 0 for everything; only what is misclassified keeps it."""
    data = labelled(model.float(), split())
    found = verdicts(model, data, Cheat(0.4), Threat("Linf", 1e-6))
    assert torch.equal(found["prediction"], data.y)
    assert (found["step"] == -1).all()


def test_nan_pixels_and_nan_logits_are_errors_not_successes(model):
    data = labelled(model.float(), split())
    with pytest.raises(RunError, match="NaN pixels"):
        verdicts(model, data, Cheat(float("nan")))

    class Late(torch.nn.Module):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return model(x) * (float("nan") if self.calls > 1 else 1)

    with pytest.raises(RunError, match="NaN"):
        verdicts(Late(), data, Cheat(0.5))


def test_what_the_model_gets_wrong_is_not_attacked(model):
    data = labelled(model.float(), split())
    wrong = Split(data.x, (data.y + 1) % 4, data.classes)
    found = verdicts(model, wrong, ATTACKS.build(Spec("pgd")))
    assert torch.equal(found["prediction"], data.y)
    assert not found["norm"].any()
    assert found["forwards"] == len(data)  # the verdict's own passes only
    assert found["backwards"] == 0


@pytest.mark.parametrize("name", ["pgd", "fgsm", "cw", "mim"])
def test_verdicts_do_not_depend_on_batch_size_or_order(name, model):
    data = labelled(model.float(), split(40))
    attack = ATTACKS.build(Spec(name))
    whole = verdicts(model, data, attack, size=40)
    assert 0 < (whole["prediction"] != data.y).sum() < 40
    for size in (1, 7, 16):
        part = verdicts(model, data, attack, size=size)
        for key in ("prediction", "step"):
            assert torch.equal(part[key], whole[key]), (size, key)
    shuffled = verdicts(model, data, attack, size=10, order=[2, 0, 3, 1])
    assert torch.equal(shuffled["prediction"], whole["prediction"])


def test_seeds_change_the_starts(model):
    data = labelled(model.float(), split())
    attack = ATTACKS.build(Spec("pgd", {"steps": 1, "step": 0.06, "restarts": 1}))
    a, b = (verdicts(model, data, attack, seed=s)["norm"] for s in (0, 1))
    assert not torch.equal(a, b)


def test_the_model_is_left_as_it_was(model):
    data = labelled(model.float(), split())
    model.train()
    before = copy.deepcopy(model.state_dict())
    verdicts(model, data, ATTACKS.build(Spec("pgd")))
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_costs_are_those_of_the_formula(model):
    """A survivor of PGD-T with R restarts costs R (T + 1) forwards and R T backwards."""
    data = labelled(model.float(), split(8))
    attack = ATTACKS.build(Spec("pgd", {"steps": 20, "restarts": 3}))
    found = verdicts(model, data, attack, Threat("Linf", 1e-6))
    assert torch.equal(found["prediction"], data.y)
    assert found["forwards"] == 8 * (3 * 21 + 1)  # one more for the verdict
    assert found["backwards"] == 8 * 3 * 20


def test_a_meter_counts_images_both_ways():
    meter = Meter(torch.nn.Linear(3, 2))
    x = torch.randn(5, 3, requires_grad=True)
    meter(x).sum().backward()
    with torch.no_grad():
        meter(x)
    assert (meter.forwards, meter.backwards) == (10, 5)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda x: torch.full((len(x), 4), float("nan")), "NaN or infinite"),
        (lambda x: torch.zeros(len(x), 7), "returns 7 classes, the data set has 4"),
        (lambda x: torch.zeros(4), "must return logits"),
        (lambda x: (x, x), "it returned tuple"),
    ],
)
def test_a_model_that_cannot_be_judged_is_refused(network, message):
    class Net(torch.nn.Module):
        def forward(self, x):
            return network(x)

    with pytest.raises(UserError, match=message) as caught:
        examine(Net(), torch.rand(2, 1, 8, 8), 4)
    assert "\n" not in str(caught.value)


def test_a_model_for_other_images_is_refused(model):
    with pytest.raises(UserError, match=r"images of shape \(3, 32, 32\)"):
        examine(model.float(), torch.rand(2, 3, 32, 32), 4)
