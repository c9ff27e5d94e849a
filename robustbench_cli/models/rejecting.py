"""Models that may reject an image instead of naming its class."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from robustbench_cli.core.losses import merge_rejection
from robustbench_cli.models.defended import DefendedModel
from robustbench_cli.models.taps import last_layer


class RejectingModel(nn.Module):
    """A classifier with K + 1 logits: those of K classes in order, then that of the rejection.

    An image is rejected where the last logit is the largest.

    Args:
        model: the network inside.
        classes: the number of classes, K.
    """

    def __init__(self, model: nn.Module, classes: int) -> None:
        super().__init__()
        self.model, self.classes = model, classes

    def around(self, model: nn.Module) -> "RejectingModel":
        """Return a copy that rejects alike around another network of the same kind."""
        other = copy.copy(self)
        other._modules = {**self._modules, "model": model}
        other._buffers = dict(self._buffers)
        return other

    def merged(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the logits (B, K) that attacks are shown: an error among them is not rejected.

        Args:
            logits: (B, K + 1), of this model or of a faster one like it.
            y: true classes (B).
        """
        return merge_rejection(logits, y)

    def ranked(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the logits (B, K) that attacks without gradients are shown; as ``merged`` does.

        A model may tell such attacks better which of two images is nearer to an error that is not
        rejected.
        """
        return self.merged(logits, y)

    @property
    def head(self) -> nn.Module:
        """The layer whose input are the features: that of the model inside."""
        return last_layer(self.model)


class ModelWithRejectClass(RejectingModel):
    """A network that was trained with a class for what it rejects.

    Args:
        model: images (B, C, H, W) in [0, 1] to logits (B, K + 1).
        classes: the number of classes without that one, K.
        index: the position of the class that rejects among its logits, 0 to K.
    """

    def __init__(self, model: nn.Module, classes: int, index: int) -> None:
        super().__init__(model, classes)
        self.index = index

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, K + 1) of images (B, C, H, W) in [0, 1], the rejection's last."""
        logits, k = self.model(x), self.index
        return torch.cat([logits[:, :k], logits[:, k + 1 :], logits[:, k : k + 1]], 1)


def with_network(model: nn.Module, change: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """Return a model whose network is changed.

    What rejects images and what stands in front of the network stay as they are around it.
    """
    if isinstance(model, RejectingModel | DefendedModel):
        return model.around(with_network(model.model, change))
    return change(model)


def rejection_of(model: object) -> RejectingModel | None:
    """Return the model itself if it rejects images, else None."""
    return model if isinstance(model, RejectingModel) else None


def shown_logits(model: object, logits: Tensor, y: Tensor) -> Tensor:
    """Return the model's logits as attacks see them (B, K), merged where it rejects images.

    Args:
        logits: (B, K), of a model that rejects (B, K + 1).
        y: true classes (B).
    """
    return model.merged(logits, y) if isinstance(model, RejectingModel) else logits
