"""Maximum softmax probability (Hendrycks and Gimpel, 2017), https://arxiv.org/abs/1610.02136."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from robustbench_cli.detectors import DETECTORS, Detector, Seen


@DETECTORS.register("softmax", aliases=("msp",))
@dataclass(frozen=True, kw_only=True)
class Softmax(Detector):
    """Suspect small shares of the predicted class; there is nothing to learn.

    An attack that goes on after the prediction has changed makes it sure of the wrong class.
    """

    def suspicion(self, seen: Seen, known: Mapping[str, Tensor]) -> Tensor:
        logits = seen.logits.double()
        top, answer = logits.max(1)
        others = logits.scatter(1, answer[:, None], float("-inf")).logsumexp(1)
        # The logarithm of (1 - p) / p: where p rounds to one it still has an order.
        return others - top
