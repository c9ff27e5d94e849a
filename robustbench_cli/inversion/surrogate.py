"""Inversion of a model that publishes no explanation: one of a model of the attacker's own stands
in for it (attention transfer; Zhao et al., 2021, https://arxiv.org/abs/2104.12669).

On the attacker's images the surrogate's maps are known.  A first network learns to draw them from
the confidences alone; a second one rebuilds the image from the confidences and what was drawn.
"""

from dataclasses import replace

from torch import Tensor
from torch.nn import functional as F

from robustbench_cli.inversion.net import (
    InversionNet,
    InversionShape,
    Inverter,
    PublishedAnswers,
)


class ImageInverter(Inverter):
    """Rebuilds images from what the model publishes; trained on the mean squared error."""

    def __init__(self, shape: InversionShape) -> None:
        super().__init__()
        self.net = InversionNet(shape)

    def loss(self, known: PublishedAnswers, x: Tensor) -> Tensor:
        return F.mse_loss(self.net(known), x)

    def images(self, known: PublishedAnswers) -> Tensor:
        out: Tensor = self.net(known)
        return out.clamp(0, 1)


class SurrogateInverter(Inverter):
    """Rebuilds images from confidences, by way of the map that a surrogate would have shown.

    ``known.maps`` holds the surrogate's maps of the attacker's images for ``loss``; ``images``
    reads the confidences only.
    """

    def __init__(self, shape: InversionShape) -> None:
        super().__init__()
        _, height, width = shape.image
        drawn = replace(shape, image=(shape.map_channels, height, width), map_channels=0)
        self.explainer = InversionNet(drawn)
        self.net = InversionNet(shape)

    def loss(self, known: PublishedAnswers, x: Tensor) -> Tensor:
        if known.maps is None:
            raise ValueError("a surrogate's maps are needed to train on")
        drawn = self.explainer(PublishedAnswers(known.confidences, None))
        image = self.net(PublishedAnswers(known.confidences, drawn))
        return F.mse_loss(image, x) + F.mse_loss(drawn, known.maps)

    def images(self, known: PublishedAnswers) -> Tensor:
        drawn = self.explainer(PublishedAnswers(known.confidences, None))
        out: Tensor = self.net(PublishedAnswers(known.confidences, drawn))
        return out.clamp(0, 1)
