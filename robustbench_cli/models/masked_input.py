"""Networks that are shown parts of images, with a value of their own for pixels that are hidden.

The base classifiers of Levine & Feizi (2020), https://arxiv.org/abs/1911.09272 (some pixels) and
https://arxiv.org/abs/2002.10733 (a band or a block).  Such a network has a ``MaskedInput`` as its
first layer: it takes plain images like any other, which it sees as a whole, and images that the
layer has masked.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from robustbench_cli.models import Classifier, Shape

Build = Callable[[Shape], Classifier]
"""Returns a network for images of a shape."""
Encoding = Literal["complement", "mean"]
"""How hidden pixels are told from seen ones: see ``ENCODINGS``."""


class MaskedInput(nn.Module, ABC):
    """The first layer of a network that is shown parts of images.

    Args:
        then: the layer that follows, such as the normalisation.
        trained_on: the parts of an image that the network has learned from, in words.
    """

    def __init__(self, then: nn.Module, trained_on: str) -> None:
        super().__init__()
        self.then, self.trained_on = then, trained_on

    @abstractmethod
    def masked(self, x: Tensor, seen: Tensor) -> Tensor:
        """Return images (B, C, H, W) of which only a part is seen, as the network is shown them.

        Args:
            x: images (B, C, H, W) in [0, 1].
            seen: the pixels that are seen, bool (B, 1, H, W).
        """

    def forward(self, x: Tensor) -> Tensor:
        """Return what the network goes on with, for whole or for masked images."""
        out: Tensor = self.then(x)
        return out


HIDDEN = -1000.0
"""A hidden pixel in masked images on their way to a ``ComplementInput``: far below any other, the
noise of smoothing included."""


class ComplementInput(MaskedInput):
    """A seen pixel of value v is the pair (v, 1 - v), a hidden one (0, 0): images (B, 2 C, H, W).

    No value of a pixel looks like a hidden one.
    """

    def masked(self, x: Tensor, seen: Tensor) -> Tensor:
        return torch.where(seen, x, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        pairs = torch.cat([x, 1 - x], 1)
        return super().forward(torch.where(torch.cat([x, x], 1) > HIDDEN / 2, pairs, 0.0))


class MeanInput(MaskedInput):
    """A hidden pixel has the mean value of its channel over the training images."""

    mean: Tensor

    def __init__(self, then: nn.Module, trained_on: str, mean: tuple[float, ...]) -> None:
        super().__init__(then, trained_on)
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))

    def masked(self, x: Tensor, seen: Tensor) -> Tensor:
        return torch.where(seen, x, self.mean.to(x))


def masked_input(model: nn.Module) -> MaskedInput | None:
    """Return the layer that masks images for a model, or None if it has none."""
    first = model.normalize if isinstance(model, Classifier) else None
    return first if isinstance(first, MaskedInput) else None


def _with_complement(build: Build, shape: Shape, trained_on: str) -> Classifier:
    doubled = replace(
        shape,
        channels=2 * shape.channels,
        mean=(*shape.mean, *(1 - mean for mean in shape.mean)),
        std=shape.std * 2,
    )
    model = build(doubled)
    model.normalize = ComplementInput(model.normalize, trained_on)
    return model


def _with_mean(build: Build, shape: Shape, trained_on: str) -> Classifier:
    model = build(shape)
    model.normalize = MeanInput(model.normalize, trained_on, shape.mean)
    return model


ENCODINGS: Mapping[Encoding, Callable[[Build, Shape, str], Classifier]] = {
    "complement": _with_complement,
    "mean": _with_mean,
}
"""What makes a network that is shown parts of images: from what builds a network, the shape of the
images, and what it is to learn from, in words."""
