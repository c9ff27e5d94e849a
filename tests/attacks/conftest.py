"""How tests run attacks that are named as on the command line."""

import pytest
import torch

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.engine.evaluate import attacked
from robustbench_cli.noise import Noise
from robustbench_cli.registry import Spec
from robustbench_cli.threat import Threat

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
        return attacked(model, x, y, build(text), threat, noise, **rest)

    return on
