"""On a device: no pass through an input defense waits for it, as each step of an attack makes one.

The device is a pretended one (``tests/plugins/pretend_device.py``), so no GPU is needed.
"""

import copy

import pytest
import torch
from pretend_device import module_on_device, on_device, pretended_device, waits

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.input_defenses import INPUT_DEFENSES
from robustbench_cli.models.defended import DefendedModel
from robustbench_cli.models.keyed_draws import keyed_draws

ALLOWED = {
    # Its coder is Pillow's, which reads pixels from the memory of the CPU.
    "jpeg": {"input_defenses/jpeg.py:JPEG.cleaned"},
}
"""The functions in which a defense may wait at each pass, and why."""
WAYS = [
    (name, way)
    for name in INPUT_DEFENSES.names()
    for way in INPUT_DEFENSES.build(Spec(name)).backwards
]


@pytest.mark.parametrize(("name", "way"), WAYS)
def test_no_pass_waits_for_the_device(name, way, digits_model):
    net, x, y = digits_model
    x, y = on_device(x[:3]), on_device(y[:3])
    with pretended_device():
        few = {"steps": 5} if INPUT_DEFENSES.accepts(name, "steps") else {}
        defense = INPUT_DEFENSES.build(Spec(name, few))
        model = DefendedModel(module_on_device(copy.deepcopy(net)), [defense], way).eval()
        noise = Noise(0, on_device(torch.arange(3)))
        leaf = x.clone().requires_grad_()
        for _ in range(2):  # what is fitted or kept at the first pass is there at the second
            with waits() as found, keyed_draws(model, noise):
                logits = model(leaf)
                (grad,) = torch.autograd.grad(logits.gather(1, y[:, None]).sum(), leaf)
    assert grad.device == x.device
    assert {each.place for each in found} == ALLOWED.get(name, set()), [*map(str, found)]
