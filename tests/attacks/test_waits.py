"""On a device: no attack's step waits for it, and none mixes its tensors with those of the CPU.

The device is a pretended one (``tests/plugins/pretend_device.py``), so no GPU is needed.
"""

import copy
from dataclasses import fields, replace

import pytest
import torch
from pretend_device import PRETENDED, module_on_device, on_device, pretended_device, waits

from robustbench_cli.attacks import ATTACKS, ExternalAttack, Stage
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.geometries import l1
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation import attack_loop
from robustbench_cli.evaluation.eval_context import EvalContext
from robustbench_cli.evaluation.fitting import fit_in_memory, fitted_context
from robustbench_cli.evaluation.search_model import exact_search_model
from robustbench_cli.evaluation.tensors import Tensors
from robustbench_cli.evaluation.verifier import Verifier, unchanged_model
from robustbench_cli.models import MODELS, Shape

STEP = "evaluation/attack_loop.py:_advance"
"""The function that takes one step of every attack: what waits in it waits at each step."""

ALLOWED = {
    # Between two of its searches it reads an image of another class, perhaps from a file: a look
    # whether any row is there is cheaper than an image at each step.
    "signature": {"attacks/_signature.py:SignatureBase._estimate"},
    # It goes from image to image, and runs DeepFool where the model is still right.
    "universal": {"attacks/universal.py:UAP.fit_round"},
}
"""The functions in which an attack may wait at each step, and why.

An ``ExternalAttack`` has no step of the loop: ``lbfgs`` and ``perceptual`` hand every gradient to
SciPy, which is on the CPU.
"""

SMALL = {
    **{"steps": 1, "queries": 3, "pairs": 2, "searches": 1, "restarts": 1, "targets": 1},
    **{"passes": 1, "epochs": 1, "shifts": 2, "angles": 2, "tries": 2, "examples": 2, "opening": 1},
    **{"fit": 2, "decay": 0.5},
}
"""Small values of the parameters that an attack's cost depends on."""
SIZES = {"Linf": 0.05, "L2": 0.3, "L1": 1.0, "L0": 4, "patch": 3, "spatial": 1}
SERIES = {"adaptive", "autoattack", "autoattack-reference", "ensemble"}
"""Lists of members, which are run by themselves here, or are another library's."""


def built(name):
    defaults = {each.name: each.default for each in fields(ATTACKS.entry(name).cls)}
    small = {
        key: value
        for key, value in SMALL.items()
        if key in defaults and (isinstance(value, tuple) or defaults[key] > value)
    }
    return ATTACKS.build(Spec(name, small))


ALONE = [name for name in ATTACKS.names() if name not in SERIES]
CASES = [(name, norm) for name in ALONE for norm in built(name).measures]


@pytest.fixture(scope="module")
def there():
    """A small net on the device, three images that it is right about, and three others."""
    torch.manual_seed(0)
    net = MODELS.build(Spec("digits-cnn", {"width": 2})).build(Shape(1, 8, 8, 4, (0.2,), (0.7,)))
    net(torch.rand(32, 1, 8, 8))
    net.eval()
    x = torch.rand(6, 1, 8, 8)
    y = net(x).argmax(1)
    module_on_device(net)
    return net, on_device(x), on_device(y)


def context_of(net, x, y, threat):
    return EvalContext(
        data=Tensors(x[:3], y[:3]),
        threat=threat,
        verifier=Verifier(net),
        search_model=exact_search_model(net),
        noise=Noise(0, torch.arange(3, device=x.device)),
        others=Tensors(x, y),
        fit=fit_in_memory(Tensors(x[3:], y[3:])),
    )


def run(attack, context):
    """The results of the first stage of an attack and of the last one, on all examples."""
    stages = attack.stages(context.threat, 4)
    for number in sorted({0, len(stages) - 1}):
        stage, rows = stages[number], torch.arange(3, device=context.data.y.device)
        context, *_ = fitted_context(number, stage, context, context.search_model)
        yield from attack_loop.run_stage(stage, rows, context)


def check_steps(name, attack, context):
    """Fail where a step of the attack waits, but for what it is allowed."""
    allowed = ALLOWED.get(name, set())
    for _ in range(2):  # tables that are made once and kept are there at the second time
        with unchanged_model(context.verifier.model), waits() as found:
            assert [*run(attack, context)]
        inside = [each for each in found if each.inside(STEP) or each.inside(".fit_round")]
        odd = [str(each) for each in inside if not any(map(each.inside, allowed))]
        if not odd:
            break
    assert not odd
    for function in allowed:
        assert any(each.inside(function) for each in inside), f"{function} waits no more"


@pytest.fixture(autouse=True)
def coarse_bisection(monkeypatch):
    """Projections to L1 balls take a third of the time; what they return is inside all the same."""
    monkeypatch.setattr(l1, "_HALVINGS", 2)


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_no_step_waits_for_the_device(name, norm, there):
    with pretended_device():
        check_steps(name, built(name), context_of(*there, Threat(norm, SIZES[norm])))


@pytest.mark.parametrize("name", ALONE)
def test_no_step_waits_with_a_target_a_mask_and_another_model_to_search_on(name, there):
    net, x, y = there
    attack = built(name)
    norm = attack.measures[0]
    with pretended_device():
        threat = Threat(norm, SIZES[norm], "box:3x3" if attack.maskable else "")
        if attack.maskable:
            threat = threat.bound(torch.ones(3, 1, 8, 8, dtype=torch.bool, device=PRETENDED))
        context = context_of(net, x, y, threat)
        if not attack.no_target:
            attack = replace(attack, target=0 if attack.fits else "next")
            aims = (y[:3] + 1) % 4
            context = replace(context, classes_to_reach=aims, verifier=Verifier(net, towards=True))
        search = replace(context.search_model, faithful=False)
        check_steps(name, attack, replace(context, search_model=search))


def test_every_attack_of_a_series_is_run_by_itself():
    alone = {type(ATTACKS.build(Spec(name))) for name in ALONE}
    for name in SERIES:
        for norm in ATTACKS.build(Spec(name)).measures:
            stages = ATTACKS.build(Spec(name)).stages(Threat(norm, 0.1), 4)
            ours = {type(s.attack) for s in stages if not isinstance(s.attack, ExternalAttack)}
            assert ours <= alone, name


def test_the_loop_looks_at_the_device_once_in_so_many_steps(there):
    """The engine's own waits: where nothing has ended, one in ``check_every`` steps."""
    net, x, y = there
    steps, every = 16, 4
    with pretended_device(), unchanged_model(net):
        context = context_of(net, x, y, Threat("Linf", 1e-4))
        search = replace(context.search_model, check_every=every)
        stage = Stage("pgd", ATTACKS.build(Spec("pgd", {"steps": steps})), 0)
        with waits() as found:
            [
                *attack_loop.run_stage(
                    stage, torch.arange(3, device=PRETENDED), replace(context, search_model=search)
                )
            ]
    looks = [each for each in found if each.place == "evaluation/attack_loop.py:_all_go_on"]
    assert len(looks) == -(-(steps + 1) // every)


@pytest.mark.parametrize("name", ["pgd", "apgd-t", "square", "fab"])
def test_the_pretended_device_finds_what_the_cpu_finds(name, there):
    """So that what is counted above is the attack itself."""
    net, x, y = there
    here = copy.deepcopy(net)
    for module in here.modules():
        for values in (module._parameters, module._buffers):
            values.update({k: v if v is None else v.detach().held for k, v in values.items()})
    threat = Threat("Linf", 0.05)
    with pretended_device():
        (found,) = run(built(name), context_of(net, x, y, threat))
    (expected,) = run(built(name), context_of(here, x.held, y.held, threat))
    assert torch.equal(found.x, expected.x)
    assert torch.equal(found.broken, expected.broken)
