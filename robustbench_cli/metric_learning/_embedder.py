"""Embedding nets: any registered architecture, its last layer giving the embedding."""

from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor, nn

from robustbench_cli.models import Classifier, ModelConfig, Shape


class Embedder(nn.Module):
    """Images (B, C, H, W) in [0, 1] to embeddings (B, D), of norm 1 if ``unit``."""

    def __init__(self, net: Classifier, unit: bool) -> None:
        super().__init__()
        self.net = net
        self.unit = unit

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 embeddings (B, D) of images (B, C, H, W) in [0, 1]."""
        z: Tensor = self.net(x)
        return F.normalize(z) if self.unit else z


def build_embedder(model: ModelConfig, shape: Shape, dim: int, unit: bool) -> Embedder:
    """Return a new embedding net, in training mode.

    Args:
        model: an architecture, whose last layer gets ``dim`` outputs in place of classes.
        shape: images of the data set.
        dim: length of an embedding.
        unit: whether embeddings are scaled to norm 1.
    """
    return Embedder(model.build(replace(shape, classes=dim)), unit)
