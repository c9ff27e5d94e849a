"""JPEG compression (Dziugaite et al., 2016; Guo et al., 2018).

https://arxiv.org/abs/1608.00853; https://arxiv.org/abs/1711.00117.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.input_defenses import INPUT_DEFENSES, Backward, DefenseContext, InputDefense


@INPUT_DEFENSES.register("jpeg", positional="quality")
@dataclass(frozen=True, kw_only=True)
class JPEG(InputDefense):
    """Encode every image as JPEG and decode it again, with Pillow's coder.

    Pixels are rounded to 8 bits first.  Colours are subsampled by two, as is usual.  Broken by the
    identity in the backward pass (Athalye et al., 2018, https://arxiv.org/abs/1802.00420).
    """

    hides: ClassVar[str] = "rounding and a coder outside of torch, without any gradient"
    backwards: ClassVar[tuple[Backward, ...]] = ("straight-through",)

    quality: Annotated[int, Field(ge=1, le=95)] = 75
    """Quality of the compression, 75 as in both papers."""

    def check(self, shape: Sequence[int]) -> None:
        if shape[0] not in (1, 3):
            raise UserError(f"jpeg takes images with 1 or 3 channels, these have {shape[0]}")

    def cleaned(self, x: Tensor, context: DefenseContext) -> Tensor:
        pixels = (x.detach().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        coded = np.stack([self._coded(each) for each in pixels]) if len(x) else pixels
        return torch.from_numpy(coded).to(x.device).permute(0, 3, 1, 2).to(x) / 255

    def _coded(self, pixels: np.ndarray) -> np.ndarray:
        """Return the decoded image (H, W, C), uint8."""
        file = io.BytesIO()
        Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(
            file, "JPEG", quality=self.quality
        )
        file.seek(0)
        with Image.open(file) as image:
            return np.asarray(image).reshape(pixels.shape)
