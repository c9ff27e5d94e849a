"""Gradient times input (Shrikumar et al., 2016), https://arxiv.org/abs/1605.01713."""

from dataclasses import dataclass

from torch import Tensor

from robustbench_cli.explanations import EXPLANATIONS, ExplainedImages, Explanation
from robustbench_cli.explanations._captum import captum_attributions, captum_method


@EXPLANATIONS.register("gradient-x-input")
@dataclass(frozen=True, kw_only=True)
class GradientTimesInput(Explanation):
    """The gradient of the class's logit times the pixel's value, by captum's InputXGradient.

    A black pixel gets zero whatever the model does with it, so on digits all importance lies on
    the strokes: that says something of the image and not of the model.
    """

    def attributions(self, asked: ExplainedImages) -> Tensor:
        return captum_attributions(captum_method("InputXGradient", asked.model), asked)
