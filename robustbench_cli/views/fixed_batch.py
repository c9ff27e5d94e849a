"""One draw of the batch statistics, held fixed, for models that mix the images of a batch.

Such models are among the defenses of Tramer et al. (2020), https://arxiv.org/abs/2002.08347, whose
predictions depend on more than the image.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from robustbench_cli.core.losses import wide
from robustbench_cli.views import VIEWS, View, ViewSubject

_TESTED = 4
"""Images that are classified beside two sets of other images."""
_TOLERANCE = 1e-4
"""The largest relative difference of logits by which neighbours do not matter."""


@VIEWS.register("fixed-batch")
@dataclass(frozen=True, kw_only=True)
class FixedBatch(View):
    """Classify each image beside the same few images of the evaluation, whatever its batch.

    The gradient then says what the image does, not what its neighbours do.  Called for where the
    answer to an image changes with the others in its batch; images are judged in the batch that
    they are judged in.
    """

    faithful = False

    neighbours: Annotated[int, Field(ge=1)] = 7
    """Images beside each."""

    @property
    def passes(self) -> int:
        return 1 + self.neighbours

    def build(self, subject: ViewSubject) -> nn.Module | None:
        if subject.random or not _mixes(subject.model, subject.x):
            return None
        return _Beside(subject.model, subject.x[: self.neighbours].clone()).eval()


class _Beside(nn.Module):
    """A model that is shown one image at a time, in front of the same others."""

    others: Tensor

    def __init__(self, model: nn.Module, others: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("others", others)

    def forward(self, x: Tensor) -> Tensor:
        batches = (torch.cat([each[None], self.others]) for each in x)
        return torch.cat([wide(self.model(batch))[:1] for batch in batches])


def _mixes(model: nn.Module, x: Tensor) -> bool:
    """True if images (B, C, H, W) get other logits beside other images."""
    tested = x[:_TESTED]
    with torch.no_grad():
        one = wide(model(torch.cat([tested, x.flip(0)[:_TESTED]])))[: len(tested)]
        other = wide(model(torch.cat([tested, 1 - x[:_TESTED]])))[: len(tested)]
    return bool((one - other).abs().max() > _TOLERANCE * (one.abs().max() + 1e-12))
