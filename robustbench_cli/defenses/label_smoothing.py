"""Label smoothing (Szegedy et al., 2016), https://arxiv.org/abs/1512.00567, section 7."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from robustbench_cli.core.losses import Criterion, wide
from robustbench_cli.core.registry import Number
from robustbench_cli.defenses import DEFENSES, Modifier


@DEFENSES.register("label-smoothing", aliases=("ls",))
@dataclass(frozen=True, kw_only=True)
class LabelSmoothing(Modifier):
    """Spread ``amount`` of each label's mass over other classes; attacks keep the hard label.

    Strong smoothing flattens the gradients that cross-entropy attacks climb: always evaluate with a
    margin-based attack, too.
    """

    amount: Annotated[Number, Field(ge=0, lt=1)] = 0.1
    """Mass taken from the label, in [0, 1)."""
    over: Literal["all", "others"] = "all"
    """Spread over all classes, the true one included (Szegedy, PyTorch), or over the others only
    (Feature Scattering)."""

    def criterion(self, base: Criterion) -> Criterion:
        def smoothed(logits: Tensor, y: Tensor) -> Tensor:
            classes = logits.shape[1]
            # Smoothing by d over the others equals smoothing by d C / (C - 1) over all.
            share = self.amount * (classes / (classes - 1) if self.over == "others" else 1)
            uniform = -wide(logits).log_softmax(1).mean(1)
            return (1 - share) * base(logits, y) + share * uniform

        return smoothed
