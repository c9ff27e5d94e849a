"""Attack masks: one file each, found by name.  They say which pixels an adversary may change.

A mask is a rule; which pixels it frees may depend on the clean image, its label, its place in the
data, or the model.  It belongs to the threat, so that any attack and any training takes it:
Rothberg et al. (2019), https://arxiv.org/abs/1909.04779, attack the background only.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

from torch import Tensor, nn

from robustbench_cli.core.registry import Registry, Spec
from robustbench_cli.core.threat import Threat


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What a mask may look at."""

    model: nn.Module
    """The model that is attacked."""
    x: Tensor
    """Clean images (B, C, H, W) in [0, 1]."""
    y: Tensor
    """Labels (B), or (B, classes) once labels were mixed."""
    ids: Tensor | None = None
    """The images' places in the data (B); None in training, where images are shuffled and moved."""


@dataclass(frozen=True, kw_only=True)
class Mask(ABC):
    """A rule that says which pixels may change."""

    inverse: bool = False
    """Swap the pixels that may change and those that must stay."""

    @abstractmethod
    def open(self, sight: Sight) -> Tensor:
        """Which pixels the rule frees, bool (B, 1 or C, H, W)."""

    def free(self, sight: Sight) -> Tensor:
        """Which pixels may change, bool (B, 1 or C, H, W); each image by itself."""
        found = self.open(sight)
        return ~found if self.inverse else found


MASKS: Registry[Mask] = Registry("mask", __name__)


def canonical(text: str) -> str:
    """A mask as records keep it, with all parameters but flags that are off.

    Raises:
        UserError: an unknown mask, or a mistake in its parameters.
    """
    if not text:
        return ""
    table = MASKS.describe(MASKS.build(Spec.parse(text)))
    pairs = {key: value for key, value in table.items() if key != "name" and value is not False}
    return f"{table['name']}:" + ",".join(f"{k}={_typed(v)}" for k, v in pairs.items())


def bind_to_images(threat: Threat, sight: Sight) -> Threat:
    """The threat to these images, with the pixels that its mask frees; as it is without a mask."""
    return threat.bound(_built(threat.mask).free(sight)) if threat.mask else threat


@lru_cache(maxsize=8)
def _built(text: str) -> Mask:
    return MASKS.build(Spec.parse(text))


def _typed(value: object) -> str:
    return "true" if value is True else str(value)
