"""Digital watermarking against visible perturbations (Hayes, 2018).

https://openaccess.thecvf.com/content_cvpr_2018_workshops/papers/w32/Hayes_On_Visible_Adversarial_CVPR_2018_paper.pdf

That such defenses fall to a patch which is made for them was shown by Chiang et al. (2020),
https://arxiv.org/abs/2003.06693.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from robustbench_cli import masks
from robustbench_cli.core.registry import Number
from robustbench_cli.input_defenses import INPUT_DEFENSES, Backward, DefenseContext, InputDefense
from robustbench_cli.input_defenses._guided import guided_saliency
from robustbench_cli.input_defenses._inpainting import inpainted
from robustbench_cli.masks import MaskContext


@INPUT_DEFENSES.register("watermark")
@dataclass(frozen=True, kw_only=True)
class Watermark(InputDefense):
    """Find the dense region that the prediction hangs on, cut it out and inpaint it.

    Blind: the guided saliency of the predicted class, as a share of its largest value, is cut at
    the threshold; erosion removes what is scattered, dilation joins and widens what is left.  Not
    blind: the mask is known.  Inpainting solves the Laplace equation instead of marching fronts
    (Telea).  The paper's method is rebuilt from its description: thresholds and sizes are our own,
    chosen on CIFAR-10, and larger images need larger ones.
    """

    hides: ClassVar[str] = "a mask from gradients of the classifier, a threshold and morphology"
    backwards: ClassVar[tuple[Backward, ...]] = ("exact", "straight-through")

    threshold: Annotated[Number, Field(gt=0, lt=1)] = 0.2
    """The saliency from which a pixel counts, as a share of the image's largest."""
    erode: Annotated[int, Field(ge=0)] = 1
    """Pixels by which regions are eroded, in a square; outside of the image nothing is eroded."""
    dilate: Annotated[int, Field(ge=0)] = 2
    """Pixels by which what is left is dilated."""
    mask: str = ""
    """The pixels to cut out where they are known, as ``--mask`` takes them, the same for every
    image, such as ``box:share=0.3``; empty: blind."""

    def __post_init__(self) -> None:
        if self.mask:
            object.__setattr__(self, "mask", masks.canonical(self.mask))
            if not masks.named_mask(self.mask).fixed:
                raise ValueError(
                    f"{self.mask!r} depends on the image: give a mask that is the same for all, "
                    "such as box:share=0.3"
                )

    @property
    def dynamic(self) -> bool:
        return not self.mask

    def cleaned(self, x: Tensor, context: DefenseContext) -> Tensor:
        return inpainted(x, self._missing(x, context).detach())

    def _missing(self, x: Tensor, context: DefenseContext) -> Tensor:
        """The pixels to cut out, bool (B, 1, H, W)."""
        if self.mask:
            labels = torch.zeros(len(x), dtype=torch.long, device=x.device)
            known = MaskContext(model=nn.Identity(), x=x.detach(), y=labels)
            return masks.named_mask(self.mask).free(known).any(1, keepdim=True)
        saliency = guided_saliency(context.model, x)[:, None]
        largest = saliency.amax((2, 3), keepdim=True)
        salient = (saliency > self.threshold * largest).to(x)
        kept = 1 - _dilated(1 - salient, self.erode)
        return _dilated(kept, self.dilate) > 0.5


def _dilated(mask: Tensor, by: int) -> Tensor:
    """The largest value (B, 1, H, W) in a square of so many pixels each way; none outside."""
    return F.max_pool2d(mask, 2 * by + 1, 1, by)
