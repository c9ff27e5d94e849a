"""Certificates by votes on copies of an image of which a part is seen and the rest is hidden.

However a hidden pixel is changed, the copy stays the same: only votes on copies that show a changed
pixel can be others.
"""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from robustbench_cli.certificates import CERTIFICATES, ProofEvidence, ProofSubject
from robustbench_cli.certificates._voting import VotingCertificate
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Number
from robustbench_cli.models.masked_input import masked_input


@dataclass(frozen=True, kw_only=True)
class MaskedVoting(VotingCertificate):
    """Votes on copies of which a part is hidden.

    The evidence is ``votes``, and the size of the images, ``image`` (B, 3).
    """

    null: Annotated[Number, Field(ge=0, le=1)] | None = None
    """Value of hidden pixels, for a model that was not trained with a value of its own: 0.5."""

    @abstractmethod
    def seen(self, x: Tensor, noise: Noise, copy: Tensor) -> Tensor:
        """Return the pixels that are seen in a copy of each image, bool (B, 1, H, W).

        They must depend on the size of the images alone, never on their values.
        """

    @property
    @abstractmethod
    def shows(self) -> str:
        """The parts of an image that are seen, in the words of ``MaskedInput.trained_on``."""

    def copies(self, model: nn.Module, x: Tensor, noise: Noise, copy: Tensor) -> Tensor:
        seen, layer = self.seen(x, noise, copy), masked_input(model)
        if layer is not None:
            return layer.masked(x, seen)
        assert self.null is not None  # see check
        return torch.where(seen, x, self.null)

    def kept(self, subject: ProofSubject) -> dict[str, np.ndarray]:
        return {**super().kept(subject), "image": np.array(subject.image_shape, np.int32)}

    def evidence(self, subject: ProofSubject, rows: Tensor) -> Iterator[ProofEvidence]:
        for found in super().evidence(subject, rows):
            image = np.tile(np.array(subject.image_shape, np.int32), (len(found.rows), 1))
            yield ProofEvidence(found.rows, {**found.arrays, "image": image})

    def check(self, subject: ProofSubject) -> None:
        name, layer = CERTIFICATES.name_of(self), masked_input(subject.model)
        if layer is None and self.null is None:
            raise UserError(
                f"--certify {name} shows the model parts of images, but this one was not trained "
                f"on such: train one (advbench list defenses: ablation-training, band-training), "
                f"or say which value hidden pixels are to have: --certify {name}:null=0.5"
            )
        if layer is not None and self.null is not None:
            raise UserError(
                f"--certify {name}:null={self.null:g}: this model has a value of its own for "
                "hidden pixels; leave null out"
            )

    def notes(self, subject: ProofSubject) -> list[str]:
        layer = masked_input(subject.model)
        if layer is None:
            return ["the model was not trained on images with hidden pixels: expect little of it"]
        base = "clean accuracy, and attacks, are of the base net, which is shown whole images there"
        if layer.trained_on == self.shows:
            return [base]
        return [base, f"the model was trained on {layer.trained_on}, and is shown {self.shows}"]
