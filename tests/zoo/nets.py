"""The small networks of the zoo and their weights, for the files in ``planted`` and ``honest``.

Those files are loaded one at a time by ``--model file.py:function``, outside of any package, and
run this one with ``runpy.run_path``.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

WEIGHTS = Path(__file__).with_name("weights")
MNIST_MEAN, MNIST_STD = 0.1307, 0.3081
ACTIVATIONS = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "leaky": nn.LeakyReLU,
    "softplus": nn.Softplus,
}


class Plain(nn.Module):
    """Images (B, C, H, W) in [0, 1] to logits (B, 10): ``head(body(x))``."""

    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, 10)."""
        return self.head(self.body(x))


class Winners(nn.Module):
    """Keep the largest fifth of all activations of an image, others become zero (k-WTA).

    Xiao, Zhong and Zheng (2020), https://arxiv.org/abs/1905.10510.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same shape (B, ...)."""
        flat = x.flatten(1)
        least = flat.topk(max(1, flat.shape[1] // 5), dim=1).values[:, -1:]
        return (flat * (flat >= least)).view_as(x)


class Tokens(nn.Module):
    """Cut images (B, C, H, W) into patches and embed each: (B, T, dim), with learned places."""

    def __init__(self, channels: int, side: int, patch: int, dim: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(channels, dim, patch, stride=patch)
        self.place = nn.Parameter(0.02 * torch.randn(1, (side // patch) ** 2, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens (B, T, dim)."""
        return self.embed(x).flatten(2).transpose(1, 2) + self.place


class Block(nn.Module):
    """One pre-norm block of a vision transformer: self-attention and a two-layer network."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens (B, T, dim)."""
        batch, tokens, dim = x.shape
        split = self.qkv(self.norm1(x)).view(batch, tokens, 3, self.heads, dim // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) / (dim // self.heads) ** 0.5).softmax(-1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(batch, tokens, dim))
        return x + self.mlp(self.norm2(x))


class Mean(nn.Module):
    """Return the mean of the tokens: (B, T, dim) to (B, dim)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, dim)."""
        return x.mean(1)


def convolutional(
    act: str, pool: str, norm: bool, *, channels: int = 1, side: int = 8, width: int = 8
) -> Plain:
    """Return a net of three convolutions; larger images are shrunk by strides before the pooling.

    Args:
        act: one of ``ACTIVATIONS``, or "kwta".
        pool: "max" or "avg".
        norm: whether there is BatchNorm after each convolution.
    """

    def after(c: int) -> list[nn.Module]:
        made = Winners() if act == "kwta" else ACTIVATIONS[act]()
        return [nn.BatchNorm2d(c), made] if norm else [made]

    stride, wide = (1 if side == 8 else 2), 2 * width
    pooling = nn.MaxPool2d(2) if pool == "max" else nn.AvgPool2d(2)
    body = nn.Sequential(
        *[nn.Conv2d(channels, width, 3, padding=1, bias=not norm), *after(width)],
        *[nn.Conv2d(width, wide, 3, stride=stride, padding=1, bias=not norm), *after(wide)],
        pooling,
        *[nn.Conv2d(wide, wide, 3, padding=1, bias=not norm), *after(wide)],
        nn.Flatten(),
    )
    return Plain(body, nn.Linear(wide * (side // (2 * stride)) ** 2, 10))


def perceptron() -> Plain:
    """Return a net of fully connected layers for the digits."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 48), nn.ReLU())
    return Plain(body, nn.Linear(48, 10))


def transformer() -> Plain:
    """Return a small vision transformer for the digits: 16 patches, two blocks."""
    blocks = [Block(32, 2), Block(32, 2)]
    return Plain(
        nn.Sequential(Tokens(1, 8, 2, 32), *blocks, nn.LayerNorm(32), Mean()), nn.Linear(32, 10)
    )


ARCHITECTURES = {
    "relu": lambda: convolutional("relu", "max", norm=True),
    "gelu": lambda: convolutional("gelu", "avg", norm=False),
    "elu": lambda: convolutional("elu", "avg", norm=True),
    "leaky": lambda: convolutional("leaky", "max", norm=False),
    "softplus": lambda: convolutional("softplus", "avg", norm=True),
    "kwta": lambda: convolutional("kwta", "avg", norm=True),
    "mlp": perceptron,
    "vit": transformer,
    "mnist": lambda: convolutional("relu", "max", norm=False, side=28),
    "cifar": lambda: convolutional("relu", "max", norm=True, channels=3, side=32, width=16),
}
"""Functions that build a net of each kind, untrained."""


def trained(name: str) -> Plain:
    """Return a trained net in evaluation mode; ``name`` is ``ARCHITECTURE-RECIPE``."""
    net = ARCHITECTURES[name.partition("-")[0]]()
    net.load_state_dict(load_file(WEIGHTS / f"{name}.safetensors"))
    return net.eval()


class After(nn.Module):
    """A network before a function of its logits."""

    def __init__(self, net: str, change) -> None:
        super().__init__()
        self.net = trained(net)
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self.net(x))
