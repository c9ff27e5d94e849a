"""What views are built from in tests."""

import pytest
import torch

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.threat import Threat
from robustbench_cli.views import ViewSubject


@pytest.fixture
def subject():
    """A maker of subjects from a model and its images."""

    def make(model, x, y, threat=None, random=False):
        return ViewSubject(
            model=model, x=x, y=y, threat=threat or Threat("Linf", 0.1),
            noise=Noise(0, torch.arange(len(y))), random=random,
        )  # fmt: skip

    return make
