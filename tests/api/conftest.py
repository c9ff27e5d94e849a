"""A net with every kind of layer that an evaluation touches."""

import copy

import pytest
from torch import nn


@pytest.fixture
def net(digits_model):
    """The trained digits net, a copy that a test may change."""
    return copy.deepcopy(digits_model[0])


@pytest.fixture
def images(digits_model):
    """24 test images (24, 1, 8, 8), float32 in [0, 1]."""
    return digits_model[1].clone()


@pytest.fixture
def labels(digits_model):
    return digits_model[2].clone()


class Narrow(nn.Module):
    """A convolution whose class an evaluation on a CPU changes, for its narrow strided kernel."""

    def __init__(self, net):
        super().__init__()
        self.narrow = nn.Conv2d(1, 1, 1, stride=1)
        self.strided = nn.Conv2d(1, 1, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(1)
        self.net = net
        self.aside = nn.Linear(16, 10)

    def forward(self, x):
        more = self.aside(self.norm(self.strided(x)).flatten(1))
        return self.net(self.narrow(x).clamp(0, 1)) + 0.01 * more


@pytest.fixture
def mixed(net):
    """A net with mixed flags: training and evaluation mode, trainable and frozen weights."""
    model = Narrow(net).train()
    model.net.eval()
    model.narrow.requires_grad_(False)
    model.aside.requires_grad_(True)
    nn.init.ones_(model.narrow.weight)
    nn.init.zeros_(model.narrow.bias)
    return model
