"""Parts shared by residual networks (He et al., 2015), https://arxiv.org/abs/1512.03385."""

from collections.abc import Callable

from torch import nn

ResidualBlock = Callable[[int, int, int], nn.Module]
"""Builds a block from its input channels, output channels and stride."""


def stage(
    block: ResidualBlock, inputs: int, outputs: int, *, stride: int, depth: int
) -> nn.Sequential:
    """Return ``depth`` blocks in sequence, mapping (B, inputs, H, W) to (B, outputs, H/stride,
    W/stride).

    The first block changes the channels and the size; the others keep both.
    """
    rest = (block(outputs, outputs, 1) for _ in range(depth - 1))
    return nn.Sequential(block(inputs, outputs, stride), *rest)


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Return the shortcut of a post-activation block.

    It is the identity, or a 1x1 convolution with batch norm where stride or channels change the
    shape.
    """
    around = nn.Sequential()
    if stride != 1 or inputs != outputs:
        around.append(nn.Conv2d(inputs, outputs, 1, stride, bias=False))
        around.append(nn.BatchNorm2d(outputs))
    return around


def initialise(body: nn.Module) -> None:
    """Initialise all convolutions as He et al. do (fan-out, for ReLU)."""
    for module in body.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
