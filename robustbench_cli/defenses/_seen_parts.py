"""Training on images of which only a part is seen, for certificates by votes on such copies."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from robustbench_cli.defenses._parts import Objective
from robustbench_cli.defenses._step import Passes, Step
from robustbench_cli.models import Classifier, Shape
from robustbench_cli.models.masked_input import ENCODINGS, Encoding, masked_input


@dataclass(frozen=True, kw_only=True)
class SeenParts(Objective):
    """The criterion on images of which a random part is seen, another one in every pass."""

    encoding: Encoding = "complement"
    """How the net is shown which pixels are hidden: complement, a pixel v as (v, 1 - v) and a
    hidden one as (0, 0); or mean, where a hidden one has the mean value of the training images."""

    @property
    @abstractmethod
    def shows(self) -> str:
        """The part that is seen, in words."""

    @abstractmethod
    def seen(self, step: Step) -> Tensor:
        """Return the pixels of each image that are seen, bool (B, 1, H, W)."""

    def network(self, build: Callable[[Shape], Classifier], shape: Shape) -> Classifier:
        return ENCODINGS[self.encoding](build, shape, self.shows)

    def crafted(self, step: Step) -> Mapping[str, Tensor]:
        layer = masked_input(step.model)
        assert layer is not None  # see network
        return {"masked": layer.masked(step.x, self.seen(step))}

    def loss(self, step: Step, logits: Passes) -> Tensor:
        return step.criterion(logits["masked"], step.y)
