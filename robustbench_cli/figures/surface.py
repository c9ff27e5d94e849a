"""The loss around one image, which robust training flattens (Zhang & Wang, 2019), figure 4.

https://arxiv.org/abs/1907.10764
"""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Number
from robustbench_cli.core.safe_text import one_line
from robustbench_cli.core.threat_text import format_eps
from robustbench_cli.figures import FIGURES, _style
from robustbench_cli.figures._measured import MeasuredFigure, MeasuredModel, ResultTable, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.contour import ContourSet
    from matplotlib.figure import Figure as Page

KEYS = ("loss", "margin", "distance")
X_LABELS = {
    "Linf": "sign of the gradient",
    "L2": "gradient",
    "L1": "largest entries of the gradient",
}
"""Label of the x axis, by the norm of the threat."""
BOUNDARY: dict[str, Any] = {"color": "#D55E00", "linestyle": "-", "linewidth": 1.8}
BALL: dict[str, Any] = {"color": "black", "linestyle": "--", "linewidth": 1.1}
IMAGE: dict[str, Any] = {"color": "black", "marker": "+", "markersize": 8, "linestyle": ""}
OVERLAYS = {"decision boundary": BOUNDARY, "threat ball": BALL, "the image": IMAGE}
"""Legend and style of what is drawn over the loss."""
PANEL_SIZE = 3.3
"""Size of one panel, in inches."""
TITLE_CHARACTERS = 40
"""Characters of a run's name that fit into one line above a panel."""
CONTOUR_LEVELS = 20
"""Approximate number of contour levels."""


@FIGURES.register("surface")
@dataclass(frozen=True, kw_only=True)
class LossSurface(MeasuredFigure):
    """Cross-entropy around a test image, along its gradient's direction and a random one.

    x axis: the unit step of steepest ascent (under Linf the gradient's sign, so that eps on this
    axis is the FGSM image); y axis: random signs (Rademacher), scaled to length 1.  Both in the
    units of the norm; contours show the loss in nats, lines the decision boundary and the threat
    ball.
    """

    image: Annotated[int, Field(ge=0)] = 0
    """Index of the test image, counted from 0."""
    points: Annotated[int, Field(ge=2, le=501)] = 41
    """Number of points along each direction; an odd number includes the image itself."""
    reach: Annotated[Number, Field(gt=0)] = 2.0
    """Largest offset along each direction, in multiples of eps."""
    clip: bool = False
    """Clip images to [0, 1], as attacks do; that folds the plane."""

    def measure(self, subject: MeasuredModel) -> ResultTable:
        import torch

        from robustbench_cli.core.example_rng import Noise
        from robustbench_cli.figures._surface_data import surface

        test = subject.dataset.load("test", subject.data_dir)
        if self.image >= len(test):
            raise UserError(f"image={self.image}: the test split has {len(test)} images")
        one = test.only(slice(self.image, self.image + 1)).to(subject.device)
        edge = self.reach * subject.threat.eps
        offsets = torch.linspace(-edge, edge, self.points, dtype=torch.float64)
        found = surface(
            subject.model,
            one.images(slice(1)),
            one.y,
            subject.threat,
            Noise(self.seed, torch.tensor([self.image]), "surface"),
            offsets,
            clip=self.clip,
            done=subject.done,
        )
        return {
            "class": test.classes[int(one.y)],
            "offsets": offsets.tolist(),
            **{key: getattr(found, key).tolist() for key in KEYS},
        }

    def paint(
        self, about: ResultTable, found: Sequence[ResultTable], names: Sequence[str]
    ) -> "Page":
        """Return a page: a filled contour plot per run on one scale, with the lines over it."""
        from matplotlib.lines import Line2D
        from matplotlib.ticker import MaxNLocator

        across = min(_style.PANELS_PER_ROW, len(found))
        down = math.ceil(len(found) / across)
        page = _style.blank_page(
            across * (PANEL_SIZE + 0.55) + 1.2, down * (PANEL_SIZE + 0.7) + 0.9
        )
        highest = max(max(map(max, one["loss"])) for one in found)
        levels = MaxNLocator(CONTOUR_LEVELS, steps=[1, 2, 2.5, 5, 10]).tick_values(
            0, highest or 1.0
        )
        for place, (one, name) in enumerate(zip(found, names, strict=True), 1):
            axes = page.add_subplot(down, across, place)
            lost = " (wrong everywhere)" if min(map(min, one["margin"])) > 0 else ""
            named = textwrap.fill(one_line(name) + lost, TITLE_CHARACTERS)
            axes.set_title(named, loc="left", fontsize=10)
            filled = _panel(axes, one, about, levels)
        bar = page.colorbar(filled, ax=page.axes, aspect=18 * down, pad=0.02)
        bar.set_label("loss (cross-entropy)")
        image = f"test image {self.image} (class {one_line(found[0]['class'])})"
        page.suptitle(f"{title(about)}, {image}", fontsize=11)
        page.supylabel(f"random signs ({_unit(about)})", fontsize=10)
        lines = {text: Line2D([], [], **look) for text, look in OVERLAYS.items()}
        _style.legend(page, [*lines.values()], [*lines], page.get_figwidth())
        return page


def _panel(
    axes: "Axes", one: ResultTable, about: ResultTable, levels: Sequence[float]
) -> "ContourSet":
    """Draw one run's contours and lines."""
    from matplotlib.patheffects import AbstractPathEffect, withStroke

    # A white border keeps lines visible on dark shades.
    halo: list[AbstractPathEffect] = [withStroke(linewidth=3.5, foreground="white")]
    scale = 255 if _unit(about) == "1/255" else 1
    at = [scale * offset for offset in one["offsets"]]
    # Transposed: the first dimension follows the gradient and belongs on the x axis.
    loss, margin, distance = (list(zip(*one[key], strict=True)) for key in KEYS)
    filled = axes.contourf(at, at, loss, levels=levels, cmap="YlGnBu")
    filled.set_edgecolor("face")  # else some viewers show seams
    for values, level, look in ((margin, 0.0, BOUNDARY), (distance, about["eps"], BALL)):
        if min(map(min, values)) < level < max(map(max, values)):
            many = {f"{key}s": value for key, value in look.items()}
            axes.contour(at, at, values, levels=[level], **many).set_path_effects(halo)
    axes.plot(0, 0, **IMAGE, path_effects=halo)
    axes.set_aspect("equal")
    axes.set_xlabel(f"{X_LABELS[about['norm']]} ({_unit(about)})", fontsize=10)
    ticks = [at[-1] * share for share in (-1, -0.5, 0, 0.5, 1)]
    axes.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
    axes.set_yticks(ticks, [f"{tick:.3g}" for tick in ticks])
    return filled


def _unit(about: ResultTable) -> str:
    """Return the unit of both axes in words."""
    if about["norm"] != "Linf":
        return _style.ell(about["norm"])
    return "1/255" if format_eps(about["eps"]).endswith("/255") else "pixels in [0, 1]"
