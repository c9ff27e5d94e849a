"""Decoding of image files (PNG, JPEG and others) into one uint8 tensor.

Pillow (Clark and contributors, 2010), https://pillow.readthedocs.io.
"""

import hashlib
import io
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, features
from torch import Tensor

from robustbench_cli.core.errors import UserError

_CHUNK = 32
"""Images that a thread takes at a time: enough to hide the cost of dispatch."""
_THREADED = 128 * 128
"""Pixels per image above which several threads are used.

Pillow releases the interpreter lock while it decodes, but reads headers in Python, which is most of
the work for small images.
"""


class Slice(NamedTuple):
    """A part of a file that holds many images."""

    file: Path
    first: int
    """Position of its first byte."""
    length: int


@dataclass(frozen=True)
class Encoded:
    """An image that is not decoded yet."""

    content: Path | bytes | Slice
    """A file, the bytes of one, or a part of a larger file."""
    where: str
    """Name of the image in messages."""

    def open(self) -> Image.Image:
        """Return the image with its header read; Pillow reads the pixels on first use.

        Raises:
            UserError: it is not a readable image.
        """
        source = self.content if isinstance(self.content, Path) else io.BytesIO(self.read())
        try:
            return Image.open(source)
        except Exception as error:  # damaged bytes raise errors of many types in Pillow
            raise UserError(f"{self.where}: not a readable image") from error

    def sha256(self) -> bytes:
        """Return the hash of its bytes.

        Raises:
            UserError: the file cannot be read.
        """
        return hashlib.sha256(self.read()).digest()

    def read(self) -> bytes:
        """Return its bytes.

        Raises:
            UserError: the file cannot be read.
        """
        if isinstance(self.content, bytes):
            return self.content
        try:
            if isinstance(self.content, Path):
                return self.content.read_bytes()
            with self.content.file.open("rb") as handle:
                return os.pread(handle.fileno(), self.content.length, self.content.first)
        except OSError as error:
            raise UserError(f"{self.where}: {error.strerror}") from error


@dataclass(frozen=True)
class Layout:
    """Channels and size, in pixels, of every decoded image of a data set."""

    channels: int
    height: int
    width: int
    resize: bool
    """Resize images of another size; else they are an error."""
    scale: int | None = None
    """Scale the shorter side to this many pixels first, then cut out the centre; None: scale the
    image as little as covers the size."""


def decoder_versions() -> str:
    """Return the versions of Pillow and of the libraries that it decodes lossy formats with."""
    libraries = ("jpg", "libjpeg_turbo", "jpg_2000", "webp")
    found = [f"{name} {features.version(name)}" for name in libraries]
    return " ".join([f"pillow {PIL.__version__}", *found])


def layout(name: str, images: Iterable[Encoded], size: int | None) -> Layout:
    """Return the common layout of a data set, from the headers of its images.

    One channel if all images are 8-bit grey (mode "L"), else three.  The size is ``size`` per side,
    or that of the first image.  Stops reading at the first colour image.

    Args:
        name: the data set in messages.

    Raises:
        UserError: there are no images, or one is not readable.
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
    """Return the images as uint8 (N, C, H, W).

    With ``wanted.resize`` an image is scaled to cover the size, bilinearly, and its centre is cut
    out.

    Raises:
        UserError: naming the first image that is damaged, of another size, or of more than 8 bits
            per channel.
    """
    size = (wanted.channels, wanted.height, wanted.width)
    out = torch.empty(len(images), *size, dtype=torch.uint8)
    if not images:
        return out
    pixels = out.numpy()

    def fill(start: int) -> None:
        for row in range(start, min(start + _CHUNK, len(images))):
            pixels[row] = _pixels(name, images[row], wanted)

    with images[0].open() as first:
        large = first.width * first.height >= _THREADED
    if not large or len(images) <= _CHUNK:  # a worker process reads few at a time, and by itself
        for start in range(0, len(images), _CHUNK):
            fill(start)
        return out
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(fill, range(0, len(images), _CHUNK)):
            pass
    return out


def _pixels(name: str, encoded: Encoded, wanted: Layout) -> NDArray[np.uint8]:
    """Decode one image to uint8 (C, H, W)."""
    with encoded.open() as image:
        if image.mode[0] in "IF":  # Pillow would silently clip 16-bit values at 255
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
        if wanted.scale:
            converted = _scaled(converted, wanted.scale)
            left, top = (round((converted.size[i] - size[i]) / 2) for i in (0, 1))
            converted = converted.crop((left, top, left + size[0], top + size[1]))
        elif converted.size != size:
            converted = ImageOps.fit(converted, size, Image.Resampling.BILINEAR)
        rows = np.asarray(converted).reshape(wanted.height, wanted.width, wanted.channels)
    return rows.transpose(2, 0, 1)


def _scaled(image: Image.Image, side: int) -> Image.Image:
    """Return the image with its shorter side of this many pixels, bilinearly, as torchvision's
    ``Resize`` scales it."""
    short, long = sorted(image.size)
    other = int(side * long / short)
    size = (side, other) if image.width <= image.height else (other, side)
    return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)
