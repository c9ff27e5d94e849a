"""Every check of a model or by attacks runs on a device, and mixes nothing with the CPU there.

The device is a pretended one (``tests/plugins/pretend_device.py``), so no GPU is needed.  Checks of
verdicts see arrays of NumPy alone.
"""

import copy

import numpy as np
import pytest
import torch
from pretend_device import REFUSED, module_on_device, on_device, pretended_device, waits

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.audit import CHECKS, Battery, BatteryCheck, JudgedAttack, ModelCheck, Probe
from robustbench_cli.audit._probe import copier
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.batch_attack import attack_batch
from robustbench_cli.evaluation.tensors import Tensors
from robustbench_cli.evaluation.verifier import unchanged_model

LINF = Threat("Linf", 0.1)
CLASSES = {name: CHECKS.entry(name).cls for name in CHECKS.names()}
OF_MODELS = [name for name, each in CLASSES.items() if issubclass(each, ModelCheck)]
BY_ATTACKS = [name for name, each in CLASSES.items() if issubclass(each, BatteryCheck)]
FEW = {"binarization": {"images": 2}, "loss-surface": {"images": 2, "points": 5}}
"""Fewer images for checks that take long."""
CHEAP = ATTACKS.build(Spec("fgsm"))
"""The attack that is run whatever a check asks for: attacks have a test of their own."""


@pytest.fixture(scope="module")
def there(digits_model):
    """The small net of the digits on the device, with six images and their labels."""
    net, x, y = digits_model
    return module_on_device(copy.deepcopy(net)), on_device(x[:6]), on_device(y[:6])


@pytest.mark.parametrize("ended", [False, True], ids=["before attacks", "after attacks"])
@pytest.mark.parametrize("name", OF_MODELS)
def test_checks_of_models(name, ended, there):
    net, x, y = there
    with pretended_device(), unchanged_model(net), waits() as found:
        probe = Probe(
            model=net,
            x=x,
            y=y,
            threat=LINF,
            attacked=LINF,
            noise=Noise(0, on_device(torch.arange(len(x)))),
            random=False,
            copy=copier(net),
            ends=x + 0.05 * (0.5 - x) if ended else None,
            stages={"fgsm": CHEAP.stages(LINF, 10)},
        )
        [*CHECKS.build(Spec(name)).look(probe)]
    assert not refused(found)


@pytest.mark.parametrize("name", BY_ATTACKS)
def test_checks_by_attacks(name, there):
    net, x, y = there
    noise = Noise(0, on_device(torch.arange(len(x))))

    def run(check, label, attack, *, eps=None, among=None, source=None, judge=None):
        ball = Threat("Linf", eps or LINF.eps)
        done = attack_batch(judge or source or net, x, y, CHEAP, ball, noise)
        return judged(done.broken.numpy(), ball.eps)

    with pretended_device(), unchanged_model(net), waits() as found:
        battery = Battery(
            model=net,
            data=Tensors(x, y),
            classes=10,
            threat=LINF,
            noise=noise,
            random=False,
            right=np.ones(len(x), bool),
            claimed=judged(np.arange(len(x)) < 2, LINF.eps),
            images=x.cpu(),
            run=run,
            train=lambda: Tensors(x, y),
            plain=lambda: net,
        )
        [*CHECKS.build(Spec(name, FEW.get(name, {}))).examine(battery)]
    assert not refused(found)


def judged(broken, eps):
    return JudgedAttack(
        label="fgsm",
        attack=CHEAP,
        stages=CHEAP.stages(LINF, 10),
        eps=eps,
        swept=False,
        broken=broken,
        share=1.0 - broken,
        by=np.where(broken, 0, -1),
        step=np.where(broken, 1, -1),
        tried=np.ones(len(broken), int),
        zero_gradient=np.zeros(len(broken), bool),
    )


def refused(found):
    """What was refused: a check goes on where the user's model raises, so it catches it."""
    return [str(each) for each in found if each.operation.startswith(REFUSED)]
