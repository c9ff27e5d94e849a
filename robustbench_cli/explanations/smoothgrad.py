"""SmoothGrad (Smilkov et al., 2017), https://arxiv.org/abs/1706.03825."""

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.core.registry import Number
from robustbench_cli.explanations import EXPLANATIONS, ExplainedImages, Explanation
from robustbench_cli.explanations._captum import captum_attributions, captum_method


@EXPLANATIONS.register("smoothgrad", aliases=("smooth-grad",))
@dataclass(frozen=True, kw_only=True)
class SmoothGrad(Explanation):
    """The mean gradient of the class's logit over copies of the image with Gaussian noise.

    The gradients are captum's.  Its NoiseTunnel draws from torch's generator, so that an image's
    noise depends on its place in the batch; here the noise is keyed by the example.
    """

    copies: Annotated[int, Field(ge=1)] = 50
    """Noisy copies; the authors see little change above 50."""
    noise: Annotated[Number, Field(ge=0)] = 0.15
    """Standard deviation of the noise as a share of the image's range, largest minus smallest pixel
    value; the authors recommend 0.1 to 0.2."""

    def attributions(self, asked: ExplainedImages) -> Tensor:
        gradient, source = captum_method("Saliency", asked.model), asked.noise.fork("smoothgrad")
        flat = asked.x.flatten(1)
        deviation = self.noise * (flat.amax(1) - flat.amin(1)).view(-1, 1, 1, 1)
        total = torch.zeros_like(asked.x)
        for index in range(self.copies):
            drawn = source.at(torch.full_like(source.ids, index)).normal(asked.x)
            noisy = replace(asked, x=asked.x + deviation * drawn)
            total += captum_attributions(gradient, noisy, abs=False)
        return total / self.copies
