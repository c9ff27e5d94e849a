"""Nets for the self-test: one whose errors are known to exist, and one that hides them."""

import torch
from torch import Tensor, nn

from robustbench_cli.core.examples import Examples
from robustbench_cli.core.losses import picked
from robustbench_cli.core.threat import Threat, over


class ClassMeans(nn.Module):
    """The linear net that names the class with the nearest mean image."""

    def __init__(self, data: Examples, classes: int) -> None:
        """Take the means of the images of each class.

        Args:
            data: images (N, C, H, W) in [0, 1] with labels.
            classes: the number of classes; one without an image is never named.
        """
        super().__init__()
        x, y = data.images(slice(None)).flatten(1), data.y
        found = [x[y == k].mean(0) for k in range(classes)]
        seen = torch.tensor([bool((y == k).any()) for k in range(classes)], device=y.device)
        means = torch.stack(found).nan_to_num(0.0)
        self.head = nn.Linear(x.shape[1], classes)
        self.head.weight = nn.Parameter(2 * means)
        bias = -means.square().sum(1)
        self.head.bias = nn.Parameter(torch.where(seen, bias, bias.amin() - 1e3))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes) of images (B, C, H, W) in [0, 1]."""
        logits: Tensor = self.head(x.flatten(1))
        return logits


class GradientKiller(nn.Module):
    """A net with the answers of another one, and a gradient that is zero everywhere."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, K) of images (B, C, H, W)."""
        logits: Tensor = self.net(x.detach() + 0 * x)
        return logits


def surely_breakable(net: ClassMeans, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
    """Return whether half of the radius is enough to make a right answer wrong (B, bool).

    One step of half the radius, along the gradient of the strongest wrong class's lead, shows it.

    Args:
        x: images (B, C, H, W) in [0, 1].
        y: labels (B).
        threat: with a mask, bound to the images.
    """
    with torch.no_grad():
        logits = net(x)
        wrong = logits.scatter(1, y[:, None], float("-inf")).argmax(1)
        slope = (net.head.weight[wrong] - net.head.weight[y]).view_as(x)
        size = over(torch.full_like(picked(logits, y), threat.eps / 2), x)
        moved = threat.project(x + size.to(x) * threat.steepest(slope), x)
        falls: Tensor = (logits.argmax(1) == y) & (net(moved).argmax(1) != y)
        return falls
