"""Random resizing and padding (Xie et al., 2018), https://arxiv.org/abs/1711.01991."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robustbench_cli.core.registry import Number
from robustbench_cli.input_defenses import INPUT_DEFENSES, Backward, DefenseContext, InputDefense


@INPUT_DEFENSES.register("resize-pad", positional="smallest")
@dataclass(frozen=True, kw_only=True)
class ResizePad(InputDefense):
    """Resize every image to a random size, nearest pixels, and pad it with zeros at a random place.

    The paper enlarges images from 299 pixels to 299 up to 330 on a canvas of 331; here the canvas
    has the size of the image, which any model takes, and the image is shrunk by the same ratio.
    Broken by averaging the gradient over draws (``--eot 20``; Athalye et al., 2018,
    https://arxiv.org/abs/1802.00420).
    """

    hides: ClassVar[str] = "random draws: the gradient of one draw is not that of another"
    backwards: ClassVar[tuple[Backward, ...]] = ("exact",)

    smallest: Annotated[Number, Field(gt=0, lt=1)] = 299 / 331
    """The smallest height as a share of the image's own; every size from there on is as likely."""

    @property
    def randomised(self) -> bool:
        return True

    def cleaned(self, x: Tensor, context: DefenseContext) -> Tensor:
        (height, width), draws = x.shape[2:], context.noise.uniform(x.new_empty(len(x), 3))
        least = max(1, min(height - 1, round(self.smallest * height)))
        high = least + (draws[:, 0] * (height + 1 - least)).long()
        wide = (high * width // height).clamp_min(1)
        top = (draws[:, 1] * (height + 1 - high)).long()
        left = (draws[:, 2] * (width + 1 - wide)).long()
        rows, inside_rows = _sources(height, high, top)
        columns, inside_columns = _sources(width, wide, left)
        every = torch.arange(len(x), device=x.device)[:, None, None]
        moved = x.permute(0, 2, 3, 1)[every, rows[:, :, None], columns[:, None, :]]
        inside = inside_rows[:, :, None] & inside_columns[:, None, :]
        return (moved * inside[..., None].to(x)).permute(0, 3, 1, 2)


def _sources(side: int, length: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """Where each pixel of the canvas comes from along one axis.

    Args:
        side: of the image and of the canvas, in pixels.
        length: to which each image is resized (B).
        first: the first pixel of the canvas that it covers (B).

    Returns:
        Positions in the image (B, side), and whether the pixel lies in it (B, side, bool).
    """
    at = torch.arange(side, device=length.device) - first[:, None]
    inside = (at >= 0) & (at < length[:, None])
    return (at * side // length[:, None]).clamp(0, side - 1), inside
