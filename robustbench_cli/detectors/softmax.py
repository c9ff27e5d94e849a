"""Maximum softmax probability (Hendrycks and Gimpel, 2017), https://arxiv.org/abs/1610.02136."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from robustbench_cli.detectors import DETECTORS, Detector, ModelOutputs


@DETECTORS.register("softmax", aliases=("msp",))
@dataclass(frozen=True, kw_only=True)
class Softmax(Detector):
    """Flag predictions with a low maximum softmax probability; nothing is fitted.

    It fails against attacks that continue after the prediction has changed, which make the model
    confident in the wrong class.
    """

    def suspicion(self, seen: ModelOutputs, known: Mapping[str, Tensor]) -> Tensor:
        logits = seen.logits.double()
        top, answer = logits.max(1)
        others = logits.scatter(1, answer[:, None], float("-inf")).logsumexp(1)
        # log((1 - p) / p) ranks as 1 - p does, and still where p rounds to one.
        return others - top
