"""Attack masks: rules for the pixels that an adversary may change, one file each.

The pixels may depend on the clean image, its label, its index in the data, or the model.  A mask is
part of the threat, so every attack and every defense can use it.  Rothberg et al. (2019),
https://arxiv.org/abs/1909.04779, attack the background only.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

from torch import Tensor, nn

from robustbench_cli.core.registry import Registry, Spec
from robustbench_cli.core.threat import Threat


@dataclass(frozen=True, kw_only=True)
class MaskContext:
    """The inputs from which a mask is computed."""

    model: nn.Module
    """The model that is attacked."""
    x: Tensor
    """Clean images (B, C, H, W) in [0, 1]."""
    y: Tensor
    """Labels as classes (B), or as probabilities (B, K) where a defense mixes labels."""
    ids: Tensor | None = None
    """The images' indices in the data (B); None in training, where images are shuffled and
    augmented."""


@dataclass(frozen=True, kw_only=True)
class Mask(ABC):
    """A rule for the pixels that may change."""

    inverse: bool = False
    """Exchange the pixels that may change and those that must not."""

    @property
    def fixed(self) -> bool:
        """True if the pixels are the same for all images, whatever is in them."""
        return False

    @abstractmethod
    def selected(self, context: MaskContext) -> Tensor:
        """Return True for the pixels that the rule frees, before ``inverse``.

        Returns:
            bool (B, 1 or C, H, W); an image's mask must not depend on the rest of the batch.
        """

    def free(self, context: MaskContext) -> Tensor:
        """Return True for the pixels that may change, bool (B, 1 or C, H, W)."""
        found = self.selected(context)
        return ~found if self.inverse else found


MASKS: Registry[Mask] = Registry("mask", __name__)


def canonical(text: str) -> str:
    """Return a mask's text with all its parameters but flags that are off, as records keep it.

    Args:
        text: a mask as ``--mask`` takes it, e.g. ``box:0.5``; empty for no mask.

    Raises:
        UserError: an unknown mask, or a mistake in its parameters.
    """
    if not text:
        return ""
    table = MASKS.describe(MASKS.build(Spec.parse(text)))
    pairs = {key: value for key, value in table.items() if key != "name" and value is not False}
    return f"{table['name']}:" + ",".join(f"{k}={_typed(v)}" for k, v in pairs.items())


def bind_to_images(threat: Threat, context: MaskContext) -> Threat:
    """Return the threat bound to the images of ``context`` and the pixels that its mask frees.

    A threat without a mask is returned unchanged.
    """
    return threat.bound(named_mask(threat.mask).free(context)) if threat.mask else threat


@lru_cache(maxsize=8)
def named_mask(text: str) -> Mask:
    """Return the mask that ``text`` names; cached, as a mask may read a file."""
    return MASKS.build(Spec.parse(text))


def _typed(value: object) -> str:
    """Return a parameter's value as a user types it."""
    return "true" if value is True else str(value)
