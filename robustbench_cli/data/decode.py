"""Image files to one uint8 tensor, for data sets that lie on disk as PNG, JPEG and the like.

Pillow (Clark and contributors, 2010), https://pillow.readthedocs.io.
"""

import io
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from robustbench_cli.core.errors import UserError

_CHUNK = 32
"""Images a thread takes at a time: enough to hide the cost of handing them out."""
_THREADED = 128 * 128
"""Pixels from which on threads pay: Pillow lets go of the interpreter while it decodes, but reads
headers in Python, which is most of the work for small images."""


@dataclass(frozen=True)
class Encoded:
    """An image that is not decoded yet: a file or its bytes, and how messages name it."""

    content: Path | bytes
    where: str

    def open(self) -> Image.Image:
        """The image with its header read; the pixels follow on first use."""
        source = io.BytesIO(self.content) if isinstance(self.content, bytes) else self.content
        try:
            return Image.open(source)
        except Exception as error:  # damaged bytes make Pillow's readers raise nearly anything
            raise UserError(f"{self.where}: not a readable image") from error


@dataclass(frozen=True)
class Layout:
    """What every decoded image of a data set has in common."""

    channels: int
    height: int
    width: int
    resize: bool
    """Whether an image of another size is resized, or is an error."""


def layout(name: str, images: Iterable[Encoded], size: int | None) -> Layout:
    """The layout of a data set, from its images' headers.

    One channel if all of them are 8-bit grey (mode "L"), else three.  The size is ``size``, or
    that of the first image.  Reads no further than it must.
    """
    channels = 1
    first = None
    for image in images:
        with image.open() as opened:
            first = first or opened.size
            if opened.mode != "L":
                channels = 3
                break
    if first is None:
        raise UserError(f"{name}: no images")
    width, height = (size, size) if size else first
    return Layout(channels, height, width, resize=size is not None)


def decode(name: str, images: Sequence[Encoded], wanted: Layout) -> Tensor:
    """One image or more as uint8 (N, C, H, W); ``UserError`` names the first that cannot be.

    With ``wanted.resize`` an image is scaled to cover the size and its middle is cut out.
    """
    size = (wanted.channels, wanted.height, wanted.width)
    out = torch.empty(len(images), *size, dtype=torch.uint8)
    pixels = out.numpy()

    def fill(start: int) -> None:
        for row in range(start, min(start + _CHUNK, len(images))):
            pixels[row] = _pixels(name, images[row], wanted)

    with images[0].open() as first:
        large = first.width * first.height >= _THREADED
    with ThreadPoolExecutor(os.cpu_count() if large else 1) as pool:
        for _ in pool.map(fill, range(0, len(images), _CHUNK)):
            pass
    return out


def _pixels(name: str, encoded: Encoded, wanted: Layout) -> NDArray[np.uint8]:
    with encoded.open() as image:
        if image.mode[0] in "IF":  # Pillow would clip 16-bit values at 255 without a word
            raise UserError(
                f"{encoded.where}: pixels of mode {image.mode!r}; expected 8 bits a channel"
            )
        size = (wanted.width, wanted.height)
        if image.size != size and not wanted.resize:
            raise UserError(
                f"{encoded.where}: size {image.width}x{image.height}, but the first image has "
                f"{wanted.width}x{wanted.height}; to resize all of them, write {name},size=32"
            )
        mode = "L" if wanted.channels == 1 else "RGB"
        try:
            image.load()
            converted = image if image.mode == mode else image.convert(mode)
        except Exception as error:
            raise UserError(f"{encoded.where}: damaged image") from error
        if converted.size != size:
            converted = ImageOps.fit(converted, size, Image.Resampling.BILINEAR)
        rows = np.asarray(converted).reshape(wanted.height, wanted.width, wanted.channels)
    return rows.transpose(2, 0, 1)
