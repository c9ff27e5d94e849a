"""The classifiers of torchvision (TorchVision maintainers, 2016), https://docs.pytorch.org/vision.

``torchvision:resnet50`` is the ImageNet ResNet-50, ``torchvision:vit_b_16`` a transformer.
"""

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robustbench_cli.core.errors import UserError, hint
from robustbench_cli.models import MODELS, Classifier, ModelConfig, Normalize, Shape
from robustbench_cli.models.weights import fill_from_state_dict, read_state


@MODELS.register("torchvision", positional="arch")
@dataclass(frozen=True, kw_only=True)
class TorchvisionModel(ModelConfig):
    """Any classification model of torchvision that ends in a linear layer."""

    arch: str
    """Its name there, e.g. ``resnet50``."""
    pretrained: bool = False
    """Start from torchvision's default weights, with the mean and std they were trained on."""
    new_head: bool = True
    """Replace the head where those weights have another number of classes, for fine-tuning."""

    def build(self, shape: Shape) -> Classifier:
        # Imported here: it takes a second that no other model should pay.
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

    def read(self, model: Classifier, path: Path) -> None:
        state = read_state(path)
        if any(name.startswith("body.") for name in state):  # a file of ours
            fill_from_state_dict(model, state, path)
            return
        from torchvision import models as zoo

        # torchvision's own file: its names, and images normalised as its weights expect.
        plain = zoo.get_model(self.arch, weights=None, num_classes=model.head.out_features)
        fill_from_state_dict(plain, state, path)
        _drop_auxiliary(plain)
        model.head = self._detach_head(plain)
        model.body = plain
        if self.normalize:
            published = zoo.get_model_weights(self.arch).DEFAULT.transforms()
            model.normalize = Normalize(tuple(published.mean), tuple(published.std))

    def _download(self, zoo: Any, weights: Any) -> nn.Module:
        try:
            with contextlib.redirect_stdout(sys.stderr):  # it says on stdout what it fetches
                model: nn.Module = zoo.get_model(self.arch, weights=weights, progress=False)
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"model 'torchvision:{self.arch}': the pretrained weights could not be downloaded "
                f"({reason}); download them elsewhere and pass --weights file.pt"
            ) from error
        return model

    def _detach_head(self, body: nn.Module) -> nn.Linear:
        """Take the last linear layer out of ``body``, which then gives what that layer read."""
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
        size = (shape.channels, shape.height, shape.width)
        body.eval()  # no batch statistics are touched and no random numbers are drawn
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


def _drop_auxiliary(body: nn.Module) -> None:
    """GoogLeNet and Inception return extra classifiers' scores in train mode; leave them out."""
    for name, _ in list(body.named_children()):
        if name.lower().startswith("aux"):
            setattr(body, name, None)
            body.aux_logits = False  # type: ignore[assignment]
