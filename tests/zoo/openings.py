"""Differentiable stand-ins for planted models: what their makers would attack instead.

Each function returns a network whose gradient points where the planted model's answer changes:
rounding is passed straight through, random draws are averaged, statistics are of one image.
"""

import runpy
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HERE = Path(__file__).parent
NETS = runpy.run_path(str(HERE / "nets.py"))
trained: Callable[[str], nn.Module] = NETS["trained"]


class Opened(nn.Module):
    """A function of images that is called as a module."""

    def __init__(self, net: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.call = net

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, 10)."""
        return self.call(x)


def planted(file: str, function: str) -> nn.Module:
    """Return the planted model itself, a fresh one."""
    return runpy.run_path(str(HERE / "planted" / f"{file}.py"))[function]()


def straight_through(change: Callable[[Tensor], Tensor], net: nn.Module) -> nn.Module:
    """Return a network behind a change of the images whose derivative is taken to be one."""
    return Opened(lambda x: net(x + (change(x) - x).detach()))


def levels(net: str, count: int) -> nn.Module:
    """Return a network behind so many grey levels, passed straight through."""
    return straight_through(lambda x: (x * (count - 1)).round() / (count - 1), trained(net))


def eight_levels() -> nn.Module:
    """Open ``quantised:eight_levels``."""
    return levels("relu-standard", 8)


def four_levels() -> nn.Module:
    """Open ``quantised:four_levels``."""
    return levels("gelu-standard", 4)


def two_levels() -> nn.Module:
    """Open ``quantised:two_levels``."""
    return levels("elu-standard", 2)


def mnist_four_levels() -> nn.Module:
    """Open ``quantised:mnist_four_levels``."""
    return levels("mnist-standard", 4)


def rounded_cosines() -> nn.Module:
    """Open ``quantised:rounded_cosines``."""
    model = planted("quantised", "rounded_cosines")
    basis = model.basis

    def change(x: Tensor) -> Tensor:
        return basis.T @ (0.3 * (basis @ x @ basis.T / 0.3).round()) @ basis

    return straight_through(change, model.net)


def counted() -> nn.Module:
    """Open ``coded:counted_by_numpy``: eleven levels."""
    return straight_through(lambda x: (10 * x + 0.5).floor() / 10, trained("mlp-standard"))


def median() -> nn.Module:
    """Open ``quantised:median``: the gradient of half of the image and half of its median."""
    net = trained("softplus-standard")

    def call(x: Tensor) -> Tensor:
        patches = F.unfold(F.pad(x, (1, 1, 1, 1)), 3)
        return net(0.5 * x + 0.5 * patches.median(1).values.view_as(x))

    return Opened(call)


def winners() -> nn.Module:
    """Open ``shattered:winners``: the mean over three fixed shifts of the image."""
    net = trained("kwta-standard")
    shifts = 0.03 * torch.randn(3, 1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return Opened(lambda x: sum(net(x + shift) for shift in shifts) / len(shifts))


def resize_and_pad() -> nn.Module:
    """Open ``stochastic:resize_and_pad``: the mean over all sizes and places."""
    net = trained("gelu-standard")

    def call(x: Tensor) -> Tensor:
        logits = []
        for side in (7, 8):
            small = F.interpolate(x, size=(side, side), mode="bilinear")
            for left in range(9 - side):
                for top in range(9 - side):
                    pads = (left, 8 - side - left, top, 8 - side - top)
                    logits.append(net(F.pad(small, pads)).log_softmax(1) / (9 - side) ** 2)
        return sum(logits)

    return Opened(call)


def nearest_mean() -> nn.Module:
    """Open the second half of ``reject:nearest_when_unsure``: the distances to class means."""
    means = planted("reject", "nearest_when_unsure").means
    return Opened(lambda x: -torch.cdist(x.flatten(1), means))


def average(*names: str) -> nn.Module:
    """Return the mean of the log-probabilities of several networks."""
    nets = [trained(name) for name in names]
    return Opened(lambda x: sum(net(x).log_softmax(1) for net in nets))


def three() -> nn.Module:
    """Open ``stochastic:one_of_three``."""
    return average("relu-standard", "elu-standard", "mlp-standard")


def three_votes() -> nn.Module:
    """Open ``side_path:vote_with_leak``."""
    return average("relu-standard", "elu-standard", "gelu-standard")


def three_robust() -> nn.Module:
    """Open the honest ensemble: itself, which has nothing to hide."""
    names = ("relu-pgd-at", "gelu-pgd-at", "elu-pgd-at")
    nets = [trained(name) for name in names]
    return Opened(lambda x: sum(net(x) for net in nets) / 3)


def one_image_norms(name: str) -> nn.Module:
    """Return a network whose BatchNorm layers take the statistics of each image alone."""
    net = trained(name)

    class OneImage(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)

    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = OneImage
    return net


def live_batchnorm() -> nn.Module:
    """Open ``batch:live_batchnorm``."""
    return one_image_norms("relu-standard")


def functional_batchnorm() -> nn.Module:
    """Open ``train_mode:functional_batchnorm``."""
    return one_image_norms("softplus-standard")


def brightness() -> nn.Module:
    """Open ``batch:batch_brightness``."""
    net = trained("leaky-standard")
    return Opened(lambda x: net(0.305 * x / x.mean((1, 2, 3), keepdim=True).clamp_min(1e-3)))


def signed() -> nn.Module:
    """Open ``variants:normalised_inside``."""
    net = trained("relu-signed")
    return Opened(lambda x: net(2 * x - 1))


def normalised_twice() -> nn.Module:
    """Open ``inputs:normalised_twice``: itself."""
    return planted("inputs", "normalised_twice")


def expects_bytes() -> nn.Module:
    """Open ``inputs:expects_bytes``: itself."""
    return planted("inputs", "expects_bytes")


def channels_reversed() -> nn.Module:
    """Open ``inputs:channels_reversed``: itself."""
    return planted("inputs", "channels_reversed")


def untrained() -> nn.Module:
    """Open ``inputs:untrained``: itself."""
    return planted("inputs", "untrained")


def untrained_transformer() -> nn.Module:
    """Open ``inputs:untrained_transformer``: itself."""
    return planted("inputs", "untrained_transformer")


def open_network(name: str) -> nn.Module:
    """Return a stand-in: one of this file's functions, or the trained network of that name."""
    made = globals().get(name)
    return made().eval() if made else trained(name)
