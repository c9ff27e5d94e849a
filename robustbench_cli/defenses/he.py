"""Hypersphere embedding (Pang et al., 2020), https://arxiv.org/abs/2002.08619, equations 4-6."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.losses import Criterion, soft
from robustbench_cli.core.registry import Number
from robustbench_cli.defenses import DEFENSES, Modifier, Recipe
from robustbench_cli.models import Classifier


@DEFENSES.register("he")
@dataclass(frozen=True, kw_only=True)
class HE(Modifier):
    """Normalise features and class weights: logits are ``scale`` times cosines, trained with a
    ``margin``.

    The training criterion is CE(s (cos - m 1_y), y), with s the scale and m the margin; attacks and
    KL terms see s cos, without the margin.  Works with any objective.  The official code overwrites
    the weights with their normalised value in each forward pass, which leaves a radial gradient and
    breaks AWP's restoring of weights; here the normalisation is part of the forward function.
    """

    scale: Annotated[Number, Field(gt=0)] = 15.0
    """Factor of the cosines in training, s."""
    margin: Annotated[Number, Field(ge=0)] = 0.2
    """Margin subtracted from the true class's cosine in the training criterion, m."""
    eval_scale: Annotated[Number, Field(ge=0)] = 0.0
    """The scale at evaluation; 0: the training scale, 1: the paper's, which weakens attacks.
    ``advbench eval --set defense.he.eval_scale=1`` evaluates the same weights with another one."""

    deployed: ClassVar[tuple[str, ...]] = ("eval_scale",)

    def check(self, recipe: Recipe, epochs: int) -> None:
        later = recipe.modifiers[recipe.modifiers.index(self) + 1 :]
        if any(type(part).criterion is not Modifier.criterion for part in later):
            raise UserError(
                "write he after label-smoothing: the margin belongs inside the smoothed criterion"
            )

    def warnings(self) -> list[str]:
        if self.eval_scale in (0, self.scale):
            return []
        return [
            f"he is trained at scale {self.scale:g} and evaluated at {self.eval_scale:g}: that "
            "changes what attacks on cross-entropy see, and may hide how weak the model is"
        ]

    def prepare(self, model: Classifier) -> Classifier:
        if not isinstance(model.head, nn.Linear):
            raise UserError("he replaces a linear last layer, but another part already did")
        model.head = CosineHead(model.head, self.scale)
        model.logit_scale = self.scale
        return model

    def deploy(self, model: Classifier) -> None:
        assert isinstance(model.head, CosineHead)
        model.head.scale = self.eval_scale or self.scale

    def criterion(self, base: Criterion) -> Criterion:
        def with_margin(logits: Tensor, y: Tensor) -> Tensor:
            return base(logits - self.scale * self.margin * soft(y, logits), y)

        return with_margin


class CosineHead(nn.Module):
    """A linear layer without bias whose features and class weights have norm one."""

    def __init__(self, linear: nn.Linear, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(linear.weight.detach().clone())
        if not self.weight.any():
            # Some architectures initialise the last layer to zero, which cannot be normalised.
            nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        """Return scale times the cosines (B, classes) of features (B, F) and class weights."""
        return self.scale * F.linear(F.normalize(features), F.normalize(self.weight))
