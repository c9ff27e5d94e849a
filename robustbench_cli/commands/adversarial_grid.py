"""The picture of an attack: clean image, adversarial image, and their difference, amplified."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from robustbench_cli.core.atomic_files import write_atomically
from robustbench_cli.core.safe_text import one_line

CELL = 224
"""Length of the longer side of an image in the picture, in pixels; larger images are as they are,
up to ``LARGEST``."""
LARGEST = 320
GAP = 16
TEXT = 17
"""The height of letters, in pixels."""
RIGHT, WRONG, PLAIN = "#00614a", "#b3261e", "#5b6470"


@dataclass(frozen=True, kw_only=True)
class GridAnswer:
    """What the model says of one image."""

    prediction: str
    right: bool
    confidence: float | None
    """The softmax probability of the prediction; None where it is not known."""

    @property
    def text(self) -> str:
        """The prediction, with its confidence in per cent."""
        sure = "" if self.confidence is None else f" {100 * self.confidence:.1f} %"
        return one_line(self.prediction) + sure


@dataclass(frozen=True, kw_only=True)
class GridRow:
    """One example of the picture."""

    name: str
    """The file that the image comes from, or its number."""
    label: str
    clean: GridAnswer
    adversarial: GridAnswer
    note: str
    """Below the difference: the distance and the step."""


def draw_adversarial_grid(
    path: Path, x: Tensor, x_adv: Tensor, rows: Sequence[GridRow], caption: str, eps: float
) -> Path:
    """Write a picture with one row per example: clean, adversarial, and the difference.

    What is right has a green check mark, what is wrong a red cross.

    Args:
        path: of the PNG file.
        x, x_adv: images (B, C, H, W) in [0, 1].
        rows: the texts of each example (B).
        caption: the line above all images.
        eps: the change of a pixel that is drawn as black or white; no change is grey.

    Returns:
        The path.
    """
    gain = 1 / (2 * max(eps, 1e-12))
    difference = (x_adv - x) * gain + 0.5
    side = min(max(CELL, *x.shape[2:]), LARGEST)
    line, column = TEXT + 7, side + GAP
    row = 2 * line + side + GAP
    letters = ImageFont.load_default(TEXT)
    width = 3 * column + GAP
    canvas = Image.new("RGB", (width, len(x) * row + 2 * line + GAP), "white")
    draw = ImageDraw.Draw(canvas)

    def write(at: tuple[int, int], text: str, room: int, fill: str = "black") -> None:
        text = one_line(text)
        while len(text) > 4 and draw.textlength(text, letters) > room:
            text = f"{text[:-4]}..."
        draw.text(at, text, fill=fill, font=letters)

    write((GAP, 4), caption, width - 2 * GAP)
    heads = ("clean", "adversarial", f"difference x{gain:.3g}")
    for place, head in enumerate(heads):
        write((GAP + place * column, line + 4), head, side, PLAIN)
    for index, about in enumerate(rows):
        top = 2 * line + GAP // 2 + index * row
        write((GAP, top), f"{about.name}: {about.label}", width - 2 * GAP, PLAIN)
        for place, image in enumerate((x[index], x_adv[index], difference[index])):
            canvas.paste(_image(image, side), (GAP + place * column, top + line))
        below = top + line + side + 3
        for place, answer in enumerate((about.clean, about.adversarial)):
            left, colour = GAP + place * column, RIGHT if answer.right else WRONG
            _sign(draw, (left, below + 2), answer.right)
            write((left + TEXT + 6, below), answer.text, side - TEXT - 6, colour)
        write((GAP + 2 * column, below), about.note, side, PLAIN)
    return write_atomically(path, lambda part: canvas.save(part, format="PNG"))


def _sign(draw: ImageDraw.ImageDraw, at: tuple[int, int], right: bool) -> None:
    """Draw a check mark or a cross: colour alone tells some readers nothing."""
    (left, top), size = at, TEXT - 4
    if right:
        check = ((0.0, 0.55), (0.38, 0.95), (1.0, 0.1))
        draw.line([(left + u * size, top + v * size) for u, v in check], fill=RIGHT, width=3)
        return
    for start, end in (((0, 0), (size, size)), ((0, size), (size, 0))):
        pairs = [(left + start[0], top + start[1]), (left + end[0], top + end[1])]
        draw.line(pairs, fill=WRONG, width=3)


def _image(x: Tensor, side: int) -> Image.Image:
    pixels = (x.clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    rgb = pixels.expand(3, -1, -1) if len(pixels) == 1 else pixels[:3]
    image = Image.fromarray(rgb.permute(1, 2, 0).contiguous().numpy())
    scale = side / max(image.size)
    shown = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    way = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    return image.resize(shown, way)
