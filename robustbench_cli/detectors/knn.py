"""Agreement of nearest neighbours, after Papernot and McDaniel (2018),
https://arxiv.org/abs/1803.04765."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor

from robustbench_cli.detectors import DETECTORS, Detector, ModelOutputs

_CHUNK = 512
"""Images compared with all training images at a time, to bound the memory."""


@DETECTORS.register("knn", pattern=r"knn-?(?P<k>\d+)")
@dataclass(frozen=True, kw_only=True)
class KNN(Detector):
    """Flag predictions that few of the nearest training images share, by cosine similarity.

    The score is the share of the k nearest training images, in the features of the last layer, with
    another class than the prediction.  The paper uses all layers and calibrates on held-out images.
    The score has only k + 1 values, so ties are common; tied pairs count half in the AUROC.
    """

    k: PositiveInt = 50
    """Number of neighbours."""

    def fit(self, seen: ModelOutputs, y: Tensor) -> dict[str, Tensor]:
        return {"directions": F.normalize(seen.features), "classes": y}

    def suspicion(self, seen: ModelOutputs, known: Mapping[str, Tensor]) -> Tensor:
        count = min(self.k, len(known["classes"]))
        nearest = [
            (part @ known["directions"].T).topk(count, dim=1).indices
            for part in torch.split(F.normalize(seen.features), _CHUNK)
        ]
        classes = known["classes"][torch.cat(nearest)]
        return (classes != seen.prediction[:, None]).double().mean(1)
