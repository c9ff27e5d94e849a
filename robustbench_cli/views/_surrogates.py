"""Small differentiable stand-ins for a part of a model, fitted to what goes in and comes out."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from robustbench_cli.core.example_rng import stream_generator

Fit = Callable[[Tensor, Tensor], nn.Module]
"""From inputs (N, ...) and outputs (N, ...) of a part of a model to a stand-in for it."""

_RIDGE = 1e-3
"""The penalty of a linear fit, as a fraction of the mean variance of its inputs."""
_LARGEST_LINEAR = 2048
"""The largest number of inputs, and of outputs, of a linear fit."""
_WIDTH, _DENSE_WIDTH = 32, 256
_UPDATES, _BATCH = 200, 64


def passed_through(given: Tensor, wanted: Tensor) -> nn.Module:
    """Return the identity where shapes agree, else a linear map."""
    return nn.Identity() if given.shape == wanted.shape else linear(given, wanted)


def linear(given: Tensor, wanted: Tensor) -> nn.Module:
    """Return the linear map with the least squared error; a small net where it would be large."""
    if max(given[0].numel(), wanted[0].numel()) > _LARGEST_LINEAR:
        return small_net(given, wanted)
    a, b = given.flatten(1).double(), wanted.flatten(1).double()
    a_mean, b_mean = a.mean(0), b.mean(0)
    a = a - a_mean
    square = a.T @ a
    square += (_RIDGE * square.diagonal().mean() + 1e-12) * torch.eye(len(square)).to(square)
    weight = torch.linalg.solve(square, a.T @ (b - b_mean))
    layer = nn.Linear(*weight.shape).to(given)
    layer.weight.data = weight.T.to(given)
    layer.bias.data = (b_mean - a_mean @ weight).to(given)
    shape = wanted.shape[1:]
    return nn.Sequential(nn.Flatten(), layer, nn.Unflatten(1, shape)).requires_grad_(False)


def small_net(given: Tensor, wanted: Tensor) -> nn.Module:
    """Return a small net, of convolutions where the outputs keep the grid of the inputs."""
    a, b = given.detach(), wanted.detach()
    net = _Net(a, b).to(given)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    order = stream_generator("small surrogate")
    size = b.std().clamp_min(1e-6)
    with torch.enable_grad():
        for number in range(_UPDATES):
            for group in optimizer.param_groups:
                group["lr"] = 3e-3 * (1 - number / _UPDATES)
            rows = torch.randint(len(a), (_BATCH,), generator=order).to(a.device)
            loss = ((net(a[rows]) - b[rows]) / size).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net.requires_grad_(False)


class _Net(nn.Module):
    """A linear map and a net with hidden layers, added; pixel by pixel with their neighbours, or
    dense."""

    def __init__(self, given: Tensor, wanted: Tensor) -> None:
        super().__init__()
        self.centre, self.spread = float(given.mean()), float(given.std().clamp_min(1e-6))
        self.shape = wanted.shape[1:]
        # A code of each pixel may stand in the channels, or in axes behind the pixel's.
        self.on_grid = given.ndim == 4 and wanted.ndim >= 4 and given.shape[2:] == wanted.shape[2:4]
        if self.on_grid:
            channels, outputs = given.shape[1], wanted[0].numel() // given[0, 0].numel()
            self.straight: nn.Module = nn.Conv2d(channels, outputs, 3, padding=1)
            layers = [
                nn.Conv2d(channels, _WIDTH, 3, padding=1), nn.GELU(),
                nn.Conv2d(_WIDTH, _WIDTH, 1), nn.GELU(),
                nn.Conv2d(_WIDTH, outputs, 1),
            ]  # fmt: skip
        else:
            inputs, outputs = given[0].numel(), wanted[0].numel()
            self.straight = nn.Linear(inputs, outputs)
            layers = [nn.Linear(inputs, _DENSE_WIDTH), nn.GELU(), nn.Linear(_DENSE_WIDTH, outputs)]
        self.bent = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.centre) / self.spread
        x = x if self.on_grid else x.flatten(1)
        out: Tensor = self.straight(x) + self.bent(x)
        if not self.on_grid:
            return out.view(-1, *self.shape)
        channels, height, width, *behind = self.shape
        split = out.view(len(out), channels, -1, height, width)
        return split.movedim(2, -1).reshape(-1, channels, height, width, *behind)
