"""Integrated gradients (Sundararajan et al., 2017), https://arxiv.org/abs/1703.01365."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from robustbench_cli.core.registry import Number
from robustbench_cli.explanations import EXPLANATIONS, ExplainedImages, Explanation
from robustbench_cli.explanations._captum import captum_attributions, captum_method

_AT_ONCE = 512
"""Points of the paths that are shown to the model at once."""


@EXPLANATIONS.register("integrated-gradients", aliases=("ig",))
@dataclass(frozen=True, kw_only=True)
class IntegratedGradients(Explanation):
    """The gradients on the straight path from a plain image, times the way, by captum.

    They add up to the difference of the class's logit between the image and the plain one, but for
    the error of the sum over ``steps`` points.
    """

    steps: Annotated[int, Field(ge=1)] = 50
    """Points of the Gauss-Legendre rule; the authors take 20 to 300 of a plain one."""
    baseline: Annotated[Number, Field(ge=0, le=1)] = 0.0
    """Value of all pixels of the plain image; 0: black, as in the paper.  Pixels that have it get
    nothing."""

    def attributions(self, asked: ExplainedImages) -> Tensor:
        return captum_attributions(
            captum_method("IntegratedGradients", asked.model),
            asked,
            baselines=self.baseline,
            n_steps=self.steps,
            internal_batch_size=max(_AT_ONCE, len(asked.x)),
        )
