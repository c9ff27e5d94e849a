"""What residual networks share (He et al., 2015), https://arxiv.org/abs/1512.03385."""

from collections.abc import Callable

from torch import nn

ResidualBlock = Callable[[int, int, int], nn.Module]
"""Makes a block from its channels in and out and its stride."""


def stage(
    block: ResidualBlock, inputs: int, outputs: int, *, stride: int, depth: int
) -> nn.Sequential:
    """``depth`` blocks; the first one changes the channels and, by ``stride``, the size."""
    rest = (block(outputs, outputs, 1) for _ in range(depth - 1))
    return nn.Sequential(block(inputs, outputs, stride), *rest)


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Around a post-activation block: a 1x1 convolution with batch norm where the shape changes."""
    around = nn.Sequential()
    if stride != 1 or inputs != outputs:
        around.append(nn.Conv2d(inputs, outputs, 1, stride, bias=False))
        around.append(nn.BatchNorm2d(outputs))
    return around


def initialise(body: nn.Module) -> None:
    """Convolutions as He et al. begin with them, for the backward pass."""
    for module in body.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
