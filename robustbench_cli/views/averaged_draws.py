"""Expectation over the draws of a randomised model (Athalye et al., 2018).

https://arxiv.org/abs/1707.07397, expectation over transformation, EOT.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from robustbench_cli.core.losses import wide
from robustbench_cli.views import VIEWS, View, ViewSubject


@VIEWS.register("averaged-draws")
@dataclass(frozen=True, kw_only=True)
class AveragedDraws(View):
    """Average the logits, and with them the gradient, over several passes of a randomised model.

    Called for where the model is randomised.  Whether an image is broken is decided by fresh draws,
    all of which must be wrong.
    """

    draws: Annotated[int, Field(ge=2)] = 16
    """Passes that are averaged."""

    @property
    def passes(self) -> int:
        return self.draws

    def build(self, subject: ViewSubject) -> nn.Module | None:
        return MeanOfDraws(subject.model, self.draws).eval() if subject.random else None


class MeanOfDraws(nn.Module):
    """The mean of a model's logits over passes."""

    def __init__(self, model: nn.Module, draws: int) -> None:
        super().__init__()
        self.model, self.draws = model, draws

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean logits (B, K) of images (B, C, H, W)."""
        return torch.stack([wide(self.model(x)) for _ in range(self.draws)]).mean(0)
