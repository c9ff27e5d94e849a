"""Agreement of nearest neighbours, after Papernot and McDaniel (2018),
https://arxiv.org/abs/1803.04765."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor

from robustbench_cli.detectors import DETECTORS, Detector, Seen

_AT_ONCE = 512
"""Images that are compared with all training images at a time."""


@DETECTORS.register("knn", pattern=r"knn-?(?P<k>\d+)")
@dataclass(frozen=True, kw_only=True)
class KNN(Detector):
    """Suspect answers that few of the nearest training images share, by the cosine of features.

    The paper looks at every layer and calibrates on held-out images; this looks at the last layer
    alone.  There are only k + 1 numbers, so many answers look alike: such pairs count half.
    """

    k: PositiveInt = 50
    """How many neighbours are asked."""

    def fit(self, seen: Seen, y: Tensor) -> dict[str, Tensor]:
        return {"directions": F.normalize(seen.features), "classes": y}

    def suspicion(self, seen: Seen, known: Mapping[str, Tensor]) -> Tensor:
        count = min(self.k, len(known["classes"]))
        nearest = [
            (part @ known["directions"].T).topk(count, dim=1).indices
            for part in torch.split(F.normalize(seen.features), _AT_ONCE)
        ]
        theirs = known["classes"][torch.cat(nearest)]
        return (theirs != seen.answer[:, None]).double().mean(1)
