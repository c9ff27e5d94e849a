"""The picture of an attack: clean image, adversarial image, and their difference, amplified."""

from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from robustbench_cli.core.atomic_files import write_atomically

CELL = 96
"""Length of the longer side of an image in the picture, in pixels."""
GAP = 8
TEXT = 14


def draw_adversarial_grid(
    path: Path,
    x: Tensor,
    x_adv: Tensor,
    titles: list[tuple[str, str]],
    caption: str,
    eps: float,
) -> Path:
    """Write a picture with one row per example: clean, adversarial, and the difference.

    Args:
        path: of the PNG file.
        x, x_adv: images (B, C, H, W) in [0, 1].
        titles: for each example, the text under the clean and under the adversarial image.
        caption: the line above all images.
        eps: the change of a pixel that is drawn as black or white; no change is grey.

    Returns:
        The path.
    """
    difference = (x_adv - x) / (2 * max(eps, 1e-12)) + 0.5
    column = CELL + GAP
    row = CELL + GAP + TEXT
    size = (3 * column + GAP, len(x) * row + 2 * TEXT + 2 * GAP)
    canvas = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((GAP, 2), caption, fill="black")
    gain = 1 / (2 * max(eps, 1e-12))
    heads = ("clean", "adversarial", f"difference x{gain:.3g}")
    for index, head in enumerate(heads):
        draw.text((GAP + index * column, TEXT + 4), head, fill="gray")
    for index, titled in enumerate(titles):
        top = 2 * TEXT + GAP + index * row
        for place, image in enumerate((x[index], x_adv[index], difference[index])):
            canvas.paste(_image(image), (GAP + place * column, top))
        for place, title in enumerate(titled):
            draw.text((GAP + place * column, top + CELL + 1), title, fill="black")
    return write_atomically(path, lambda part: canvas.save(part, format="PNG"))


def _image(x: Tensor) -> Image.Image:
    pixels = (x.clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    rgb = pixels.expand(3, -1, -1) if len(pixels) == 1 else pixels[:3]
    image = Image.fromarray(rgb.permute(1, 2, 0).contiguous().numpy())
    scale = CELL / max(image.size)
    shown = (round(image.width * scale), round(image.height * scale))
    return image.resize(shown, Image.Resampling.NEAREST)
