"""Write a data set of 100 classes that needs no download: two handwritten digits side by side.

    python benchmarks/digit_pairs.py pairs.npz
    advbench train pgd-at --dataset npz:pairs.npz --eps 0.1

Images are 8 by 16 pixels, made of scikit-learn's digits; the class is the two-digit number.  No
digit that a training image shows is in a test image.
"""

from io import BytesIO
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from sklearn.datasets import load_digits

from robustbench_cli.core.atomic_files import write_bytes_atomically

TRAINED_ON = 1437
"""The digits that training images are made of; the other 360 make the test images."""


def pairs(images: np.ndarray, labels: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, ...]:
    """Return ``n`` images (n, 8, 16, uint8) and their classes (n), of digits drawn at random."""
    left, right = np.random.default_rng(seed).integers(len(images), size=(2, n))
    side_by_side = np.concatenate([images[left], images[right]], 2)
    return np.round(side_by_side / 16 * 255).astype(np.uint8), 10 * labels[left] + labels[right]


def main(
    out: Annotated[Path, typer.Argument(help="The file to write.")],
    train: Annotated[int, typer.Option(min=1, help="Training images.")] = 20_000,
    test: Annotated[int, typer.Option(min=1, help="Test images.")] = 1_000,
) -> None:
    """Write the training and the test images with their classes."""
    digits = load_digits()
    x, y = pairs(digits.images[:TRAINED_ON], digits.target[:TRAINED_ON], train, 0)
    x_test, y_test = pairs(digits.images[TRAINED_ON:], digits.target[TRAINED_ON:], test, 1)
    file = BytesIO()
    np.savez_compressed(file, x=x, y=y, x_test=x_test, y_test=y_test)
    write_bytes_atomically(out, file.getvalue())


if __name__ == "__main__":
    typer.run(main)
