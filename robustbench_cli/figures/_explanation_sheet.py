"""The picture of ``advbench explain``: a row per image, and per method its map over the image."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustbench_cli.figures import _style
from robustbench_cli.runs.records import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Sheet
    from numpy import ndarray

EXPLANATION_PICTURE = "explanations.png"
_CELL = 1.15
"""Side of one picture, in inches."""
_MAP, _HEAT = "magma", "inferno"
_OVERLAY = 0.55
"""The opacity of a map over its image."""


def draw_explanations(folder: Path, run: Run) -> Path:
    """Draw the images of a run and what each method says of them; return the file.

    Columns: the image, then per method its map, the map over the image and, where the method makes
    one, the changed image, cut to [0, 1].  Each map is drawn from its zero to its own maximum.

    Raises:
        UserError: matplotlib is not installed, or the run's file is damaged.
    """
    _style.needed()
    from robustbench_cli.evaluation.journal import read_arrays

    arrays = read_arrays(folder / run.explanations["file"])
    file = folder / EXPLANATION_PICTURE
    _style.save_figure(partial(_paint, run, arrays), file)
    return file


def _paint(run: Run, arrays: Mapping[str, "ndarray"]) -> "Sheet":
    images = arrays["image"]
    columns = [*_columns(list(run.config["methods"]), arrays)]
    titles = [_lines(title) for title, _, _ in columns]
    most = max(text.count("\n") for text in titles)
    width, height = _CELL * (1 + len(columns)), _CELL * len(images) + 0.5 + 0.12 * most
    page = _style.blank_page(width, height)
    grid = page.subplots(len(images), 1 + len(columns), squeeze=False)
    for row, axes in enumerate(grid):
        _show(axes[0], images[row])
        said = f"{arrays['label'][row]} as {arrays['prediction'][row]}"
        axes[0].set_ylabel(said, fontsize=8)
        for at, (_, kind, values) in enumerate(columns, 1):
            _PAINTERS[kind](axes[at], images[row], values[row])
            if not row:
                axes[at].set_title(titles[at - 1], fontsize=7)
    grid[0][0].set_title("image", fontsize=7)
    return page


def _lines(title: str) -> str:
    """Return a label on several lines, a parameter on each, as a column is narrow."""
    return _style.label(title).replace(":", ":\n").replace(",", ",\n")


def _columns(
    labels: list[str], arrays: Mapping[str, "ndarray"]
) -> "list[tuple[str, str, ndarray]]":
    found = []
    for label in labels:
        found.append((label, "map", arrays[f"{label}/map"]))
        found.append(("overlay", "overlay", arrays[f"{label}/map"]))
        if f"{label}/counterfactual" in arrays:
            found.append(("counterfactual", "image", arrays[f"{label}/counterfactual"]))
    return found


def _bare(axes: "Axes") -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)


def _show(axes: "Axes", image: "ndarray") -> None:
    """Draw an image (C, H, W), cut to [0, 1]."""
    _bare(axes)
    shown: Any = image.clip(0, 1).transpose(1, 2, 0)
    axes.imshow(shown if shown.shape[2] == 3 else shown.mean(2), cmap="gray", vmin=0, vmax=1)


def _changed(axes: "Axes", _image: "ndarray", changed: "ndarray") -> None:
    _show(axes, changed)


def _map(axes: "Axes", _image: "ndarray", values: "ndarray") -> None:
    """Draw importances (H, W), from zero to their maximum."""
    _bare(axes)
    axes.imshow(values, cmap=_MAP, vmin=0, vmax=float(values.max()) or 1)


def _overlay(axes: "Axes", image: "ndarray", values: "ndarray") -> None:
    """Draw importances over a grey image."""
    _bare(axes)
    axes.imshow(image.mean(0), cmap="gray", vmin=0, vmax=1)
    axes.imshow(values, cmap=_HEAT, vmin=0, vmax=float(values.max()) or 1, alpha=_OVERLAY)


_PAINTERS = {"map": _map, "overlay": _overlay, "image": _changed}
