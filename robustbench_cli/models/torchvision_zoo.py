"""The classifiers of torchvision (TorchVision maintainers, 2016), https://docs.pytorch.org/vision.

``torchvision:resnet50`` is the ImageNet ResNet-50, ``torchvision:vit_b_16`` a transformer.
"""

import contextlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_cli.core.errors import UserError, hint
from robustbench_cli.models import MODELS, Classifier, ModelConfig, Normalize, Shape
from robustbench_cli.models.normalizations import assumed_normalization
from robustbench_cli.models.weights import WeightsFile, classes_in_layer, fill_from_file


@MODELS.register("torchvision", positional="arch")
@dataclass(frozen=True, kw_only=True)
class TorchvisionModel(ModelConfig):
    """Any classification model of torchvision that ends in a linear layer."""

    arch: str
    """Name of the architecture in torchvision, e.g. ``resnet50``."""
    pretrained: bool = False
    """Start from torchvision's default weights, with the mean and std that they were trained with.
    """
    new_head: bool = True
    """Replace the head, for fine-tuning, where the weights have another number of classes."""

    def build(self, shape: Shape) -> Classifier:
        # Imported here because it takes a second, which other models need not spend.
        from torchvision import models as zoo

        known = zoo.list_models(module=zoo)
        if self.arch not in known:
            raise UserError(f"unknown torchvision model {self.arch!r}{hint(self.arch, known)}")
        normalize = self.normalizer(shape)
        if self.pretrained:
            weights = zoo.get_model_weights(self.arch).DEFAULT
            body = self._download(zoo, weights)
            if self.normalize:
                published = weights.transforms()
                normalize = Normalize(tuple(published.mean), tuple(published.std))
        else:
            body = zoo.get_model(self.arch, weights=None, num_classes=shape.classes)
        _drop_auxiliary(body)
        head = self._detach_head(body)
        if head.out_features != shape.classes and self.new_head:
            head = nn.Linear(head.in_features, shape.classes, bias=head.bias is not None)
        self._probe(body, head, shape)
        return Classifier(normalize, body, head)

    def read(self, model: Classifier, file: WeightsFile) -> tuple[str, ...]:
        if _saved_here(file.state):
            return fill_from_file(model, file)
        from torchvision import models as zoo

        # A file of torchvision: its parameter names, and the normalisation its weights expect.
        plain = zoo.get_model(self.arch, weights=None, num_classes=model.head.out_features)
        notes = fill_from_file(plain, file)
        _drop_auxiliary(plain)
        model.head = self._detach_head(plain)
        model.body = plain
        if self.normalize:
            published = zoo.get_model_weights(self.arch).DEFAULT.transforms()
            pair = tuple(published.mean), tuple(published.std)
            model.normalize = Normalize(*pair)
            notes = (*notes, assumed_normalization(*pair))
        return notes

    def classes_in(self, state: Mapping[str, Tensor]) -> int | None:
        if _saved_here(state):
            return super().classes_in(state)
        from torchvision import models as zoo

        with torch.device("meta"):
            plain = zoo.get_model(self.arch, weights=None)
        linear = [name for name, m in plain.named_modules() if isinstance(m, nn.Linear)]
        return classes_in_layer(plain, state, linear[-1]) if linear else None

    def class_names(self) -> tuple[str, ...]:
        from torchvision import models as zoo

        return tuple(zoo.get_model_weights(self.arch).DEFAULT.meta["categories"])

    def _download(self, zoo: Any, weights: Any) -> nn.Module:
        """Return the network with torchvision's default weights, fetched on first use."""
        try:
            # torchvision prints to stdout what it downloads.
            with contextlib.redirect_stdout(sys.stderr):
                model: nn.Module = zoo.get_model(self.arch, weights=weights, progress=False)
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"model 'torchvision:{self.arch}': the pretrained weights could not be downloaded "
                f"({reason}); download them elsewhere and pass --weights file.pt"
            ) from error
        return model

    def _detach_head(self, body: nn.Module) -> nn.Linear:
        """Remove the last linear layer from ``body`` and return it; ``body`` then returns that
        layer's input."""
        linear = [(name, m) for name, m in body.named_modules() if isinstance(m, nn.Linear)]
        if not linear:
            raise UserError(
                f"model 'torchvision:{self.arch}' has no linear layer to serve as the head; "
                "choose an architecture that ends in one, such as 'resnet50'"
            )
        path, head = linear[-1]
        parent, _, name = path.rpartition(".")
        setattr(body.get_submodule(parent), name, nn.Identity())
        return head

    def _probe(self, body: nn.Module, head: nn.Linear, shape: Shape) -> None:
        """Check with a forward pass that ``body`` takes such images and fits ``head``."""
        size = (shape.channels, shape.height, shape.width)
        body.eval()  # changes no batch statistics and draws no random numbers
        try:
            with torch.no_grad():
                features = body(torch.zeros(2, *size))
        except (RuntimeError, ValueError, AssertionError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"model 'torchvision:{self.arch}' does not take images of "
                f"{'x'.join(map(str, size))}: {reason}"
            ) from error
        if tuple(features.shape) != (2, head.in_features):
            raise UserError(
                f"model 'torchvision:{self.arch}' does not end in its last linear layer: "
                f"expected features of size {head.in_features}, got {tuple(features.shape[1:])}"
            )
        body.train()


def _saved_here(state: Mapping[str, Tensor]) -> bool:
    """Return whether a state dict is of a network of this program, not of torchvision's own."""
    return any(name.startswith("body.") for name in state)


def _drop_auxiliary(body: nn.Module) -> None:
    """Remove the auxiliary classifiers of GoogLeNet and Inception.

    In train mode these networks would return their scores beside the logits.
    """
    for name, _ in list(body.named_children()):
        if name.lower().startswith("aux"):
            setattr(body, name, None)
            body.aux_logits = False  # type: ignore[assignment]
