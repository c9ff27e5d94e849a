"""Models that decide on one path and let gradients through another."""

import runpy
from pathlib import Path

import torch
from torch import Tensor, nn

NETS = runpy.run_path(str(Path(__file__).parents[1] / "nets.py"))
trained = NETS["trained"]


class Detached(nn.Module):
    """A network cut off from its images, beside a small linear map."""

    def __init__(self, net: str, pixels: int) -> None:
        super().__init__()
        self.net = trained(net)
        draw = torch.Generator().manual_seed(1)
        self.register_buffer("side", torch.randn(pixels, 10, generator=draw))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).detach() + 0.01 * x.flatten(1) @ self.side


def detached_main() -> nn.Module:
    """Add a small linear map to logits that have no gradient."""
    return Detached("relu-standard", 64)


def mnist_detached_main() -> nn.Module:
    """Do the same on MNIST."""
    return Detached("mnist-standard", 784)


class Leaky(nn.Module):
    """A network behind eight levels, which let a little of the mirrored image through."""

    def __init__(self) -> None:
        super().__init__()
        self.net = trained("gelu-standard")

    def forward(self, x: Tensor) -> Tensor:
        return self.net((7 * x).round().detach() / 7 + 1e-3 * x.flip(-1))


def leaky_quantiser() -> nn.Module:
    """Quantise the image and leak a thousandth of its mirror image."""
    return Leaky()


class Vote(nn.Module):
    """The votes of three networks, and a little of a random map."""

    def __init__(self) -> None:
        super().__init__()
        names = ("relu-standard", "elu-standard", "gelu-standard")
        self.nets = nn.ModuleList(trained(name) for name in names)
        draw = torch.Generator().manual_seed(2)
        self.register_buffer("leak", torch.randn(64, 10, generator=draw))

    def forward(self, x: Tensor) -> Tensor:
        answers = [net(x) for net in self.nets]
        votes = sum(nn.functional.one_hot(z.argmax(1), 10).float() for z in answers)
        average = sum(z.softmax(1) for z in answers) / len(answers)
        return votes + 0.1 * average.detach() + 1e-3 * x.flatten(1) @ self.leak


def vote_with_leak() -> nn.Module:
    """Count votes, which have no gradient, and leak a linear map that has one."""
    return Vote()


class Shadow(nn.Module):
    """A network that shows the gradient of another one."""

    def __init__(self) -> None:
        super().__init__()
        self.net = trained("elu-standard")
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.shown = NETS["ARCHITECTURES"]["relu"]().eval()

    def forward(self, x: Tensor) -> Tensor:
        z, shown = self.net(x), self.shown(x)
        return z.detach() + shown - shown.detach()


def shadow_gradient() -> nn.Module:
    """Give the logits of one network and the gradient of an untrained one."""
    return Shadow()
