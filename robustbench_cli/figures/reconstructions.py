"""Private images and what an attacker rebuilds of them, by what the model publishes.

As in figure 5 of Zhao et al. (2021), https://arxiv.org/abs/2104.12669.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from robustbench_cli.core.errors import UserError
from robustbench_cli.figures import FIGURES, Figure, Material, Painter
from robustbench_cli.runs import folders, records
from robustbench_cli.runs.records import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Page

_WIDTH, _HEIGHT, _NAMES = 0.75, 0.8, 2.9
"""The size of an image and the room for a row's name, in inches."""


@FIGURES.register("reconstructions")
@dataclass(frozen=True, kw_only=True)
class Reconstructions(Figure):
    """The first images of a privacy audit, a row for each thing that the attacker may know.

    From the latest finished run of advbench invert, or from the one that is named.
    """

    images: Annotated[int, Field(ge=1)] = 8
    """How many, from the first."""

    def prepare(self, material: Material) -> Painter:
        if len(material.names) > 1:
            raise UserError("reconstructions are of one run of advbench invert: name one")
        name = material.names[0] if material.names else None
        folder = folders.find_run(name, material.results, "invert")
        run = records.read(folder)
        if run.kind != "invert":
            raise UserError(f"run {run.id!r} is of kind {run.kind!r}; name one of advbench invert")
        return partial(paint_reconstructions, run, folder, self.images)


def paint_reconstructions(run: Run, folder: Path, images: int = 8) -> "Page":
    """Draw the first images of an inversion.

    Raises:
        UserError: the file with the images is missing or was replaced.
    """
    from robustbench_cli.evaluation.journal import read_arrays
    from robustbench_cli.figures._style import blank_page

    names = [*dict.fromkeys(measure.of for measure in run.measures)]
    path = folder / run.samples.get("file", "")
    if not path.is_file() or records.sha256(path) != run.samples.get("sha256"):
        raise UserError(f"{path} is missing, damaged or was replaced: run the audit again")
    arrays = read_arrays(path)
    values = {(each.of, each.name): each.value for each in run.measures}
    count = min(images, run.n or 0)
    page = blank_page(_NAMES + count * _WIDTH, len(names) * _HEIGHT + 0.3)
    page.suptitle(f"{run.subject}: {records.data_name(run)}, first {count} of {run.n}", size=11)
    axes = page.subplots(len(names), count, squeeze=False)
    for row, name in enumerate(names):
        for at in range(count):
            cell, picture = axes[row][at], arrays[name][at].transpose(1, 2, 0)
            grey = picture.shape[2] == 1
            cell.imshow(picture[..., 0] if grey else picture, cmap="gray", vmin=0, vmax=255)
            cell.set_xticks([])
            cell.set_yticks([])
            for spine in cell.spines.values():
                spine.set_visible(False)
        error = values.get((name, "MSE"))
        told = f"\nMSE {error:.4f}" if error else ""
        axes[row][0].set_ylabel(name + told, rotation=0, ha="right", va="center", size=9)
    return page
