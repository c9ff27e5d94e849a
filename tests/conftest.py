"""Real small things that most tests need."""

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from robustbench_cli.models import MODELS, Classifier, Shape
from robustbench_cli.noise import Noise
from robustbench_cli.registry import Spec

# Small nets on busy cores: two threads that wait for each other are many times slower than one.
torch.set_num_threads(1)

SHAPE = Shape(channels=1, height=8, width=8, classes=4, mean=(0.2,), std=(0.7,))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def model() -> Classifier:
    """A small net in float64, so that oracles can be exact; BatchNorm has seen some data."""
    net = MODELS.build(Spec("digits-cnn", {"width": 4})).build(SHAPE).double()
    net.train()
    for _ in range(3):
        net(torch.rand(32, 1, 8, 8).double())
    return net


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    return torch.rand(6, 1, 8, 8).double(), torch.tensor([0, 1, 2, 3, 0, 1])


@pytest.fixture
def noise() -> Noise:
    return Noise(0, torch.arange(6))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Where MNIST and the CIFAR-10 JPEGs are; tests skip where they are not."""
    named = os.environ.get("ADVBENCH_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    if not (folder / "MNIST" / "raw").is_dir():
        pytest.skip(f"no MNIST at {folder}; set ADVBENCH_DATA")
    return folder


@pytest.fixture(scope="session")
def digits_model() -> tuple[Classifier, Tensor, Tensor]:
    """A net trained for a few seconds on the digits, with 24 test images and their labels."""
    from robustbench_cli.data import DATASETS

    torch.manual_seed(0)
    digits = DATASETS.build(Spec("digits"))
    train, test = (digits.load(split, Path()) for split in ("train", "test"))
    shape = Shape(1, 8, 8, 10, (0.0,), (1.0,))
    net = MODELS.build(Spec("digits-cnn", {"width": 8})).build(shape)
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    for epoch in range(8):
        for rows in torch.randperm(len(train)).split(64):
            x = train.images(rows)
            # A little adversarial training by noise, so that attacks have something to do.
            x = (x + 0.2 * torch.randn_like(x)).clamp(0, 1) if epoch % 2 else x
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(x), train.y[rows]).backward()
            optimizer.step()
    net.eval().requires_grad_(False)
    return net, test.images(slice(24)), test.y[:24]
