"""Images rotated and translated a little: poses on a lattice, their rendering, and the way back.

Rotation and translation as an attack are those of Engstrom et al. (2019,
https://arxiv.org/abs/1712.02779): by up to 30 degrees, and by up to 3 pixels either way in images
of 28 or 32 pixels, 24 in images of 224.  Poses are the points of a lattice, so that there are
finitely many and an image can be told from any other: ``pose_sizes`` finds the pose of an image,
or says that it has none.  A search that is told nothing but the pixels cannot be cheated.
"""

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from robustbench_cli.core.example_rng import Noise

DEGREES = 30
"""The largest rotation, either way."""
ANGLES = 60
"""Steps of the lattice from no rotation to the largest: half a degree each."""
SHIFT_SHARE = 3 / 28
"""The largest translation as a part of the shorter side, rounded to whole pixels: 3 pixels of 28
and of 32, 24 of 224, as in the paper."""
SAME_WITHIN = 1e-5
"""By how much an image may differ from the rendering of its pose, in any entry."""
RENDERED = 64
"""Poses that are rendered together, once a few pixels have ruled out the others."""
MOST_PIXELS = 48
"""Pixels that are compared before poses are rendered."""


@dataclass(frozen=True)
class PoseLattice:
    """The poses of images of one size: whole numbers (B, 3) of steps right, down and around."""

    limit: int
    """The largest translation in pixels."""
    step: float
    """The step of the lattice in pixels."""

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> "PoseLattice":
        """Return the lattice for images of this shape (..., H, W).

        Its step is a quarter of a pixel, or half a one where the limit is above 12 pixels.
        """
        limit = max(1, round(min(shape[-2:]) * SHIFT_SHARE))
        return cls(limit, 0.25 if limit <= 12 else 0.5)

    @property
    def shifts(self) -> int:
        """Steps from no translation to the largest."""
        return round(self.limit / self.step)

    def within(self, eps: float) -> tuple[int, int]:
        """Return how many steps of translation and of rotation a part ``eps`` of the limits has."""
        return math.floor(self.shifts * eps + 1e-6), math.floor(ANGLES * eps + 1e-6)

    def sizes(self, poses: Tensor) -> Tensor:
        """Return the smallest part of the limits that allows each pose (B, 3), as float64 (B)."""
        most = _most(self.shifts, ANGLES, poses.device)
        return (poses.abs().double() / most).amax(1)

    def drawn(self, eps: float, x: Tensor, noise: Noise) -> Tensor:
        """Return a random pose of each image (B, 3, int64), uniform within a part of the limits."""
        most = _most(*self.within(eps), x.device)
        share = noise.uniform(x.flatten(1)[:, :1].expand(-1, 3).contiguous())
        # At least float32's 24 bits: rounded to float64 the product stays below the next number.
        return (share.double() * (2 * most + 1)).floor().long() - most

    def rendered(self, x: Tensor, poses: Tensor) -> Tensor:
        """Return images (B, C, H, W) in their poses (B, 3, int64), with black where none was.

        First the image is rotated about its middle, counter-clockwise, then it is moved to the
        right and down; both bilinear, with enough black around that no part is lost between them.
        """
        margin = self.limit + 1
        rows, columns = (
            torch.arange(-margin, side + margin, device=x.device) for side in x.shape[2:]
        )
        turned = _turned(x, poses[:, 2], rows, columns)
        right, down = (poses[:, k].double() * self.step for k in (0, 1))
        return _moved(_moved(turned, down, margin, 2), right, margin, 3).clamp(0, 1)


@cache
def _most(shifts: int, angles: int, device: torch.device) -> Tensor:
    """The largest pose (3), int64; kept, because each query of a search asks for it."""
    return torch.tensor([shifts, shifts, angles], device=device)


def pose_sizes(x_adv: Tensor, x: Tensor) -> Tensor:
    """Return the smallest part of the limits at which each image is a rendering of the clean one.

    Args:
        x_adv: images (B, C, H, W).
        x: the clean images.

    Returns:
        As float64 (B): 0 for the clean image itself; infinite where no pose gives the image.
    """
    lattice = PoseLattice.of(tuple(x.shape))
    sizes = [
        0.0 if torch.equal(image, clean) else _size(image, clean, lattice)
        for image, clean in zip(x_adv, x, strict=True)
    ]
    return torch.tensor(sizes, dtype=torch.float64, device=x.device)


def _size(image: Tensor, clean: Tensor, lattice: PoseLattice) -> float:
    """The size of the smallest pose in which ``clean`` (C, H, W) is ``image``; infinite: none."""
    poses = _possible(image, clean, lattice)
    if not len(poses):
        return math.inf
    sizes = lattice.sizes(poses)
    order = sizes.argsort(stable=True)
    for some in torch.split(order, RENDERED):
        made = lattice.rendered(clean.expand(len(some), *clean.shape), poses[some])
        same = ((made - image).abs() <= SAME_WITHIN).flatten(1).all(1)  # False for NaN
        if bool(same.any()):
            return float(sizes[some[same]].min())
    return math.inf


def _possible(image: Tensor, clean: Tensor, lattice: PoseLattice) -> Tensor:
    """The poses (P, 3) that a few pixels of ``image`` do not rule out; P may be 0.

    For one pixel, its values in all poses are a product of small matrices: the rotated images
    around it, and the weights of their pixels in every translation.
    """
    margin, width, device = lattice.limit + 1, image.shape[2], image.device
    angles = torch.arange(-ANGLES, ANGLES + 1, device=device)
    weights, near = _weights(lattice, image), torch.arange(-margin, margin + 1, device=device)
    fits = torch.ones(len(angles), len(weights), len(weights), dtype=torch.bool, device=device)
    contrast = image.diff(dim=1, append=image[:, -1:]).abs()
    contrast = contrast + image.diff(dim=2, append=image[:, :, -1:]).abs()
    for place in contrast.sum(0).flatten().topk(min(MOST_PIXELS, contrast[0].numel())).indices:
        row, column = divmod(int(place), width)
        few = clean.expand(len(angles), *clean.shape)
        around = _turned(few, angles, row + near, column + near)
        values = weights @ around @ weights.T  # (angles, C, translations down, right)
        off = (values - image[:, row, column, None, None]).abs().amax(1)
        fits &= off <= 2 * SAME_WITHIN
        left = fits.flatten(1).any(1)
        angles, fits = angles[left], fits[left]
        if int(fits.sum()) <= RENDERED:
            break
    angle, down, right = fits.nonzero().unbind(1)
    return torch.stack([right - lattice.shifts, down - lattice.shifts, angles[angle]], 1)


def _weights(lattice: PoseLattice, like: Tensor) -> Tensor:
    """The weights (2 shifts + 1, 2 margin + 1) of a pixel's neighbours in a row, per translation.

    The pixel itself is in the middle.
    """
    margin = lattice.limit + 1
    moves = torch.arange(-lattice.shifts, lattice.shifts + 1, device=like.device).double()
    first, part = _split(-moves * lattice.step)
    weights = like.new_zeros(len(moves), 2 * margin + 1)
    each = torch.arange(len(moves), device=like.device)
    weights[each, margin + first] = (1 - part).to(like)
    weights[each, margin + first + 1] += part.to(like)
    return weights


def _split(at: Tensor) -> tuple[Tensor, Tensor]:
    """The whole numbers below, int64, and what is left, in [0, 1)."""
    below = at.floor()
    return below.long(), at - below


def _turned(x: Tensor, angles: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Some pixels of images (B, C, H, W) rotated counter-clockwise about their middle.

    Args:
        x: the images.
        angles: of each (B), in steps of the lattice.
        rows: of the pixels (R), int64, also above and below the image.
        columns: likewise (S).

    Returns:
        (B, C, R, S).
    """
    height, width = x.shape[2:]
    angle = torch.deg2rad(angles.double() * (DEGREES / ANGLES))[:, None, None]
    middle_row, middle_column = (height - 1) / 2, (width - 1) / 2
    down, right = rows.double()[:, None] - middle_row, columns.double() - middle_column
    # Where each pixel comes from; rows count downward.
    column, across = _split(angle.cos() * right - angle.sin() * down + middle_column)
    row, along = _split(angle.sin() * right + angle.cos() * down + middle_row)
    each = torch.arange(len(x), device=x.device)[:, None, None]

    def at(rows: Tensor, columns: Tensor) -> Tensor:
        known = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        found = x[each, :, rows.clamp(0, height - 1), columns.clamp(0, width - 1)]
        return torch.where(known[:, None], found.permute(0, 3, 1, 2), 0)

    across, along = across[:, None].to(x), along[:, None].to(x)
    upper = at(row, column) * (1 - across) + at(row, column + 1) * across
    lower = at(row + 1, column) * (1 - across) + at(row + 1, column + 1) * across
    return upper * (1 - along) + lower * along


def _moved(x: Tensor, pixels: Tensor, margin: int, axis: int) -> Tensor:
    """Images moved along an axis (2: down, 3: right), and cut by ``margin`` at both of its ends."""
    first, part = _split(-pixels)
    index = torch.arange(x.shape[axis] - 2 * margin, device=x.device) + margin + first[:, None]
    shape = [len(x), 1, 1, 1]
    shape[axis] = -1
    size = list(x.shape)
    size[axis] = index.shape[1]
    near = x.gather(axis, index.view(shape).expand(size))
    far = x.gather(axis, (index + 1).view(shape).expand(size))
    share = part.view(-1, 1, 1, 1).to(x)
    return near * (1 - share) + far * share
