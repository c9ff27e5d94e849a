"""A small embedding net, and a class-balanced batch of digits."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.threat import Threat
from robustbench_cli.data.digits import Digits
from robustbench_cli.data.shape import shape_of
from robustbench_cli.metric_learning import MetricStep
from robustbench_cli.metric_learning._embedder import build_embedder
from robustbench_cli.models.digits_cnn import DigitsCNN


@pytest.fixture(scope="session")
def digits():
    return Digits().load("train", Path())


@pytest.fixture
def embedder(digits):
    torch.manual_seed(0)
    return build_embedder(DigitsCNN(width=4), shape_of(Digits(), digits), 16, True)


@pytest.fixture
def step(digits, embedder):
    rows = torch.cat([(digits.y == label).nonzero()[:4, 0] for label in range(4)])
    return MetricStep(
        model=embedder.train(),
        x=digits.images(rows),
        y=digits.y[rows],
        threat=Threat("Linf", 0.15),
        noise=Noise(0, rows, "test"),
        key=(0, 0, 0),
        last_loss=torch.tensor(0.1),
    )


@pytest.fixture
def at(step):
    """The same batch under another radius."""
    return lambda eps: replace(step, threat=Threat("Linf", eps))
