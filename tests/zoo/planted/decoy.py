"""Models whose wrong classes lead attacks away: the decision is a net's, the logits are not."""

import runpy
from pathlib import Path

import torch
from torch import Tensor, nn

trained = runpy.run_path(str(Path(__file__).parents[1] / "nets.py"))["trained"]


class Lures(nn.Module):
    """How far an image is from a pattern of each class (B, 10), positive and smooth."""

    def __init__(self) -> None:
        super().__init__()
        signs = torch.randn(10, 64, generator=torch.Generator().manual_seed(3)).sign()
        self.register_buffer("signs", signs)

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 + nn.functional.softplus(4 + x.flatten(1) @ self.signs.T)


class RunnerUp(nn.Module):
    """The class after the winner's is made the strongest wrong one, and follows a lure."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.lures = trained("relu-standard"), Lures()

    def forward(self, x: Tensor) -> Tensor:
        z = self.net(x)
        best = z.argmax(1)
        decoy = nn.functional.one_hot((best + 1) % 10, 10).bool()
        return torch.where(decoy, z.amax(1, keepdim=True) - 0.1 * self.lures(x), z)


def runner_up() -> nn.Module:
    """Let the strongest wrong class stay a little below the right one, wherever an attack goes."""
    return RunnerUp()


class Landscape(nn.Module):
    """All wrong classes follow lures: logits tell nothing of the net but its answer."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.lures = trained("elu-standard"), Lures()

    def forward(self, x: Tensor) -> Tensor:
        z = self.net(x)
        top = z.amax(1, keepdim=True)
        return torch.where(z == top, top, top - self.lures(x))


def landscape() -> nn.Module:
    """Give every wrong class a logit that has nothing to do with the net's."""
    return Landscape()


class Softly(RunnerUp):
    """The same, going over from one decoy to the next without a jump."""

    def forward(self, x: Tensor) -> Tensor:
        z = self.net(x)
        share = z.softmax(1).roll(1, 1)
        lure = z.logsumexp(1, keepdim=True) - 0.1 * self.lures(x)
        return (1 - share) * z + share * lure


def softly() -> nn.Module:
    """Let the strongest wrong class stay a little below the right one, without a jump."""
    return Softly()
