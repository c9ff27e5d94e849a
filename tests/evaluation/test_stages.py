"""The judge trusts nobody."""

import copy
import gc
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

from robustbench_cli.attacks import ATTACKS, ExternalAttack, IterativeAttack
from robustbench_cli.commands.attack_summary import fill_unattacked
from robustbench_cli.core.errors import RunError, UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.data import Split
from robustbench_cli.evaluation.batch_attack import attack_batch
from robustbench_cli.evaluation.eval_context import EvalContext
from robustbench_cli.evaluation.meter import Meter
from robustbench_cli.evaluation.model_check import check_model
from robustbench_cli.evaluation.search_model import SearchModel, exact_search_model
from robustbench_cli.evaluation.stages import AttackVerdicts, clean, run_stages
from robustbench_cli.evaluation.verifier import Verifier, unchanged_model

THREAT = Threat("Linf", 0.05)


def split(n=40, classes=4):
    images = torch.randint(0, 256, (n, 1, 8, 8), dtype=torch.uint8)
    return Split(images, torch.zeros(n, dtype=torch.long), tuple("abcd"[:classes]))


def labelled(model, data):
    """The data with the model's own predictions as labels: everything is standing."""
    with unchanged_model(model), torch.no_grad():
        y = model(data.images(slice(None))).argmax(1)
    return Split(data.x, y, data.classes)


def verdicts(model, data, attack, threat=THREAT, size=16, seed=0, ids=None, search_model=None):
    """What an evaluation keeps of every example: the attack sees those that are right."""
    n = len(data)
    with unchanged_model(model):
        itself = exact_search_model(model)
        context = EvalContext(
            data=data,
            threat=threat,
            verifier=Verifier(model),
            search_model=search_model or itself,
            noise=Noise(seed, torch.arange(n) if ids is None else ids),
            slots=size,
        )
        before, column = AttackVerdicts.empty(n), AttackVerdicts.empty(n)
        for found in clean(context, torch.arange(n)):
            before.put(0, found, minimal=False)
        right = before.arrays["share"] > 0
        stages = attack.stages(threat, len(data.classes))
        for _ in run_stages(stages, column, right, context, itself):
            pass
    fill_unattacked(column, right, before, data.y.numpy())
    return column.arrays | {"broken": column.broken}


@dataclass(frozen=True, kw_only=True)
class Foreign(ExternalAttack):
    """A code that returns anything at all."""

    value: float

    def craft(self, model, task):
        return torch.full_like(task.x, self.value)


@dataclass(frozen=True, kw_only=True)
class Wanderer(IterativeAttack):
    """An attack that looks anywhere at all."""

    value: float

    def begin(self, task):
        return {"x": torch.full_like(task.x, self.value)}

    def loss(self, out, state, task, step_index):
        return out.logits.sum(1)

    def move(self, state, look, task):
        return state

    def over(self, state, taken):
        return taken >= 2


cheats = pytest.mark.parametrize("cheat", [Foreign, Wanderer])


@cheats
def test_an_attack_that_leaves_the_ball_is_brought_back(cheat, model):
    data = labelled(model.float(), split())
    found = verdicts(model, data, cheat(value=7.0))
    assert (found["norm"] <= THREAT.eps + 1e-6).all()
    assert (found["norm"] > 0).all()


@cheats
def test_a_success_outside_the_ball_is_none(cheat, model):
    data = labelled(model.float(), split())
    far = model.eval()(torch.full((1, 1, 8, 8), 0.4)).argmax(1)
    assert (data.y != far).any()  # where the attack looks there is something to be claimed
    found = verdicts(model, data, cheat(value=0.4), Threat("Linf", 1e-6))
    assert np.array_equal(found["prediction"], data.y.numpy())
    assert not found["broken"].any()
    assert (found["step"] == -1).all()


@cheats
def test_a_success_that_float32_does_not_confirm_is_none(cheat, model):
    """The search's model is wrong about everything; the judge's is not."""
    data = labelled(model.float(), split())
    search_model = SearchModel(model=lambda x: -model(x))
    found = verdicts(model, data, cheat(value=0.4), Threat("Linf", 1e-6), search_model=search_model)
    assert np.array_equal(found["prediction"], data.y.numpy())
    assert not found["broken"].any()
    assert (found["step"] == -1).all()


@cheats
def test_nan_pixels_are_an_error_not_a_success(cheat, model):
    data = labelled(model.float(), split())
    with pytest.raises(RunError, match="NaN"):
        verdicts(model, data, cheat(value=float("nan")))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["pgd", "apgd-ce-5", "square-20", "fab-t-5", "deepfool"])
def test_logits_that_are_not_finite_are_an_error_not_a_success(name, bad, model):
    data = labelled(model.float(), split())

    class Late(nn.Module):
        """Breaks down at the first image that is not a clean one."""

        def __init__(self):
            super().__init__()
            self.net = model

        def forward(self, x):
            inside = (x * 255 - (x * 255).round()).abs().flatten(1).amax(1) < 1e-3
            return torch.where(inside[:, None], self.net(x), bad)

    with pytest.raises(UserError, match="NaN or infinite"):
        verdicts(Late(), data, ATTACKS.build(Spec(name)))


def test_what_the_model_gets_wrong_is_not_attacked(model):
    data = labelled(model.float(), split())
    y = data.y.clone()
    y[::2] = (y[::2] + 1) % 4
    found = verdicts(model, Split(data.x, y, data.classes), ATTACKS.build(Spec("pgd")))
    right, wrong = slice(1, None, 2), slice(0, None, 2)
    assert np.array_equal(found["prediction"][wrong], data.y.numpy()[wrong])
    for key in ("norm", "forwards", "backwards", "broken"):
        assert not found[key][wrong].any(), key
    assert (found["step"][wrong] == -1).all()
    assert found["forwards"][right].all()


@pytest.mark.parametrize("name", ["pgd8", "fgsm", "mim6", "apgd-t-3", "square-12"])
def test_verdicts_do_not_depend_on_batch_size_or_order(name, model):
    data = labelled(model.float(), split(130))
    attack = ATTACKS.build(Spec(name))
    threat = Threat("Linf", 0.12) if name.startswith("square") else THREAT
    whole = verdicts(model, data, attack, threat, size=130)
    assert 0 < whole["broken"].sum() < 130
    keys = ("prediction", "step", "by", "forwards", "backwards")
    for size, n in ((1, 12), (7, 40), (128, 130)):
        part = verdicts(model, data.only(slice(n)), attack, threat, size=size)
        for key in keys:
            assert np.array_equal(part[key], whole[key][:n]), (size, key)
        np.testing.assert_allclose(part["norm"], whole["norm"][:n], atol=1e-6)
    order = torch.randperm(130)[:40]
    other = data.only(order)
    shuffled = verdicts(model, other, attack, threat, size=10, ids=order)
    for key in keys:
        assert np.array_equal(shuffled[key], whole[key][order.numpy()]), key


def test_a_lack_of_memory_halves_the_clean_pass_and_goes_on(model):
    data, notes = labelled(model.float(), split(20)), []
    y = torch.where(torch.arange(20) < 7, (data.y + 1) % 4, data.y)

    class Small(nn.Module):
        """Room for four images only."""

        def forward(self, x):
            if len(x) > 4:
                raise torch.OutOfMemoryError("out of memory")
            return model.eval()(x)

    context = EvalContext(
        data=Split(data.x, y, data.classes),
        threat=THREAT,
        verifier=Verifier(Small()),
        search_model=exact_search_model(model),
        noise=Noise(0, torch.arange(20)),
        slots=16,
        note=notes.append,
    )
    found = list(clean(context, torch.arange(20)))
    assert torch.cat([each.rows for each in found]).tolist() == list(range(20))
    assert torch.cat([each.broken for each in found]).tolist() == [True] * 7 + [False] * 13
    assert notes == [f"out of memory: going on with {n} examples at a time" for n in (8, 4)]
    with pytest.raises(RuntimeError, match="shapes"):
        list(clean(replace(context, verifier=Verifier(nn.Linear(3, 4))), torch.arange(20)))


def test_what_is_too_close_to_call_is_not_kept_in_memory_as_images(model):
    """However many there are: what a run holds is a matter of its slots."""
    model.float().eval()

    def most(n):
        gc.collect()
        data, held = labelled(model, split(n)), []

        def doubted(x):
            alive = (each for each in gc.get_objects() if type(each) is torch.Tensor)
            held.append(sum(len(each) for each in alive if each.shape[1:] == data.x.shape[1:]))
            return model(x)

        # Every example withstands, and all of them are looked at again.
        search_model = SearchModel(model=doubted, uncertain_margin=1e6)
        found = verdicts(
            model, data, ATTACKS.build(Spec("fgsm")), Threat("Linf", 1e-6), 8, 0, None, search_model
        )
        assert (found["forwards"] == 2 * 4).all()
        return max(held) - min(held)

    assert most(48) == most(16)


def test_seeds_change_the_starts(model):
    data = labelled(model.float(), split())
    attack = ATTACKS.build(Spec("pgd", {"steps": 1, "step": 0.06, "restarts": 1}))
    a, b = (verdicts(model, data, attack, seed=s)["norm"] for s in (0, 1))
    assert not np.array_equal(a, b)


def test_the_model_is_left_as_it_was(model):
    data = labelled(model.float(), split())
    model.train()
    before = copy.deepcopy(model.state_dict())
    verdicts(model, data, ATTACKS.build(Spec("pgd")))
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_costs_are_those_of_the_formula(model):
    """A survivor of PGD-T with R restarts costs R (T + 3) forwards and R (T + 1) backwards.

    Each restart looks at the clean image once, at the start and after each of T steps with a
    gradient, and has its best image judged.
    """
    data = labelled(model.float(), split(8))
    attack = ATTACKS.build(Spec("pgd", {"steps": 20, "restarts": 3}))
    found = verdicts(model, data, attack, Threat("Linf", 1e-6), size=3)
    assert np.array_equal(found["prediction"], data.y.numpy())
    assert (found["forwards"] == 3 * (1 + 21 + 1)).all()
    assert (found["backwards"] == 3 * 21).all()


@pytest.mark.parametrize(
    "text",
    [
        *("pgd:steps=4,restarts=2", "pgd:steps=3,eot=3", "mt:steps=2", "square-20", "fab-4"),
        *("apgd-t-6", "nes:queries=40,pairs=3", "ddn10", "pgd:steps=4,last_iterate=true"),
        *("deepfool", "deepfool:candidates=2"),
    ],
)
def test_costs_are_the_images_that_went_through_the_model(text, model):
    """To the image, whoever was broken when and whatever the slots."""

    class Counted(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.meter = model.double(), Meter(model)

        def forward(self, x):
            return self.meter(x)

    counted, attack = Counted(), ATTACKS.build(Spec.parse(text))
    x = torch.rand(21, 1, 8, 8).double()
    y = model.eval()(x).argmax(1)
    threat = Threat(attack.norms[0], {"Linf": 0.06, "L2": 0.4}[attack.norms[0]])
    noise = Noise(0, torch.arange(21))
    found = attack_batch(counted, x, y, attack, threat, noise, slots=5 * (1 + attack.probes))
    one = 1  # the image that shows how many classes there are
    assert counted.meter.forwards - one == found.forwards.sum()
    assert counted.meter.backwards == found.backwards.sum()


def test_a_meter_counts_images_both_ways():
    meter = Meter(nn.Linear(3, 2))
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
        (lambda x: torch.zeros(len(x), 4), "have no gradient"),
    ],
)
def test_a_model_that_cannot_be_judged_is_refused(network, message):
    class Net(nn.Module):
        def forward(self, x):
            return network(x)

    with pytest.raises(UserError, match=message) as caught:
        check_model(Net(), torch.rand(2, 1, 8, 8), 4)
    assert "\n" not in str(caught.value)


def test_a_model_for_other_images_is_refused(model):
    with pytest.raises(UserError, match=r"images of shape \(3, 32, 32\)"):
        check_model(model.float(), torch.rand(2, 3, 32, 32), 4)
