"""How tests run attacks that are named as on the command line."""

import pytest
import torch

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.batch_attack import attack_batch

LINF = Threat("Linf", 0.2)


@pytest.fixture
def build():
    """An attack by its name and parameters."""
    return lambda text: ATTACKS.build(Spec.parse(text))


@pytest.fixture
def run(build):
    """Attack a batch; ``ids`` say which examples it is of, if it is not the first ones."""

    def on(model, x, y, text, threat=LINF, ids=None, **rest):
        noise = Noise(0, torch.arange(len(y)) if ids is None else ids)
        return attack_batch(model, x, y, build(text), threat, noise, **rest)

    return on
