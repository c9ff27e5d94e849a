"""RISE, randomised input sampling (Petsiuk et al., 2018), https://arxiv.org/abs/1806.07421."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn.functional import interpolate

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Number
from robustbench_cli.explanations import EXPLANATIONS, ExplainedImages, Explanation


@EXPLANATIONS.register("rise", positional="masks")
@dataclass(frozen=True, kw_only=True)
class RISE(Explanation):
    """The mean of random masks, each weighted by the class's probability where the rest is black.

    Captum 0.9 has no RISE, so the masks are made here as section 3.2 says: a coarse grid of zeros
    and ones, enlarged bilinearly and shifted by a random part of a cell.  They are keyed by the
    example and not shared by all images as the authors' are.  Every map stands on a pedestal, the
    mean probability: importances are what rises above the map's smallest value.
    """

    masks: PositiveInt = 4000
    """Masks per image, each one pass; the authors take 4000 for VGG-16 and 8000 for ResNet-50."""
    cells: PositiveInt = 7
    """Cells of the grid along each side."""
    shown: Annotated[Number, Field(gt=0, lt=1)] = 0.5
    """Probability that a cell is shown."""

    def attributions(self, asked: ExplainedImages) -> Tensor:
        source, total = asked.noise.fork("rise"), torch.zeros_like(asked.x[:, :1])
        with torch.no_grad():
            for index in range(self.masks):
                mask = self.mask(asked.x, source.at(torch.full_like(source.ids, index)))
                score = asked.model(asked.x * mask).softmax(1)
                chosen = score.gather(1, asked.target[:, None])
                total += chosen.view(-1, 1, 1, 1).to(mask) * mask
        return total / (self.masks * self.shown)

    def mask(self, x: Tensor, noise: Noise) -> Tensor:
        """Return one mask for each image of ``x`` (B, C, H, W): (B, 1, H, W) in [0, 1]."""
        sides = x.shape[2:]
        cell = [-(-side // self.cells) for side in sides]
        grid = noise.fork("cells").uniform(x.new_empty(len(x), 1, self.cells, self.cells))
        size = [(self.cells + 1) * side for side in cell]
        cells = (grid < self.shown).to(x)
        large = interpolate(cells, size, mode="bilinear", align_corners=False).clamp(0, 1)
        shift = noise.fork("shift").uniform(x.new_empty(len(x), 2))
        rows, columns = (
            (shift[:, at, None] * cell[at]).long() + torch.arange(sides[at], device=x.device)
            for at in (0, 1)
        )
        every = torch.arange(len(x), device=x.device)[:, None, None]
        return large[every, 0, rows[:, :, None], columns[:, None, :]][:, None]

    def saliency(self, attributions: Tensor) -> Tensor:
        return (attributions - attributions.amin((2, 3), keepdim=True)).mean(1)
