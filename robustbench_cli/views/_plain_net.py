"""A small convolutional net without anything that could hide a gradient."""

from torch import Tensor, nn

_SIDE = 16
"""Images are pooled to at most this many pixels a side before the convolutions."""


def plain_net(x: Tensor, classes: int, width: int = 24) -> nn.Sequential:
    """Return a net of three convolutions and a linear layer, with random weights.

    Args:
        x: images (B, C, H, W), whose mean and deviation it normalises by; the net has their device
            and dtype.
        classes: the number of its logits.
        width: channels of the first convolution.
    """
    side = min(_SIDE, x.shape[2]), min(_SIDE, x.shape[3])
    net = nn.Sequential(
        Standardized(x.mean(), x.std().clamp_min(1e-3)),
        nn.AdaptiveAvgPool2d(side),
        nn.Conv2d(x.shape[1], width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(2 * width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * width * ((side[0] + 1) // 2) * ((side[1] + 1) // 2), classes),
    )
    return net.to(x)


class Standardized(nn.Module):
    """Images minus their mean, divided by their deviation."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Tensor, deviation: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)

    def forward(self, x: Tensor) -> Tensor:
        """Return the images (B, C, H, W), standardized."""
        return (x - self.mean) / self.deviation
