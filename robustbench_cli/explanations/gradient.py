"""The gradient of the class score (Simonyan et al., 2014), https://arxiv.org/abs/1312.6034."""

from dataclasses import dataclass

from torch import Tensor

from robustbench_cli.explanations import EXPLANATIONS, ExplainedImages, Explanation
from robustbench_cli.explanations._captum import captum_attributions, captum_method


@EXPLANATIONS.register("gradient")
@dataclass(frozen=True, kw_only=True)
class InputGradient(Explanation):
    """The gradient of the class's logit by each pixel, by captum's Saliency.

    A pixel's importance is the largest magnitude over its channels, as in section 3.1.
    """

    def attributions(self, asked: ExplainedImages) -> Tensor:
        return captum_attributions(captum_method("Saliency", asked.model), asked, abs=False)

    def saliency(self, attributions: Tensor) -> Tensor:
        return attributions.abs().amax(1)
