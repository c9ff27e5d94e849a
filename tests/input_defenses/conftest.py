"""Images to clean, and members as a user names them."""

import pytest
import torch
from torch import nn

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.input_defenses import INPUT_DEFENSES, DefenseContext


@pytest.fixture
def cleaned():
    """Clean images by a defense as it is typed; the model only matters to those that ask it."""

    def clean(text, x, model=None, seed=0):
        noise = Noise(seed, torch.arange(len(x)))
        context = DefenseContext(model=model or nn.Flatten(), noise=noise)
        return INPUT_DEFENSES.build(Spec.parse(text)).cleaned(x, context)

    return clean


@pytest.fixture
def digits(digits_model):
    """The 24 images (24, 1, 8, 8)."""
    return digits_model[1]
