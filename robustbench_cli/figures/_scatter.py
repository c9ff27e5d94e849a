"""Scatter plot of clean accuracy (x axis) against robust accuracy (y axis), both in percent.

Error bars are standard deviations over seeds; points of one curve are joined by a line.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from robustbench_cli.core.safe_text import one_line
from robustbench_cli.figures import _style
from robustbench_cli.figures._bounds import caption_lines, draw_bounds
from robustbench_cli.figures._style import COLOURS, HEIGHT, MARKERS, PANELS_PER_ROW, WIDTH
from robustbench_cli.report.statistics import Cell

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Page
    from matplotlib.lines import Line2D
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

MARKER_HALF_SIDE = 4
"""Half the side, in pixels, of the square that a point occupies."""
CROWD = 12
"""The number of curves above which panels are larger, and stand below each other."""
MIN_SPAN = 1.0
"""Smallest span of an axis, in percentage points."""


@dataclass(frozen=True, kw_only=True)
class TradeoffCurve:
    """Training configurations that differ in one number, in its order; or a single one."""

    name: str
    labels: tuple[str, ...]
    """Label of each point, such as ``beta=6``; empty for a single configuration."""
    clean: tuple[Cell, ...]
    robust: tuple[Cell, ...]


@dataclass(frozen=True, kw_only=True)
class TradeoffPanel:
    """Curves with the same data and threat, which can be compared."""

    title: str
    column: str
    """The attack, or column of the report, of the robust accuracies."""
    curves: tuple[TradeoffCurve, ...]
    withheld: int = 0
    """The rows that are not drawn because their number means nothing."""


def paint_tradeoff(panels: Sequence[TradeoffPanel]) -> "Page":
    """Return a page with the panels side by side and one legend below them."""
    drawn = [curve for panel in panels for curve in panel.curves]
    names = list(dict.fromkeys(curve.name for curve in drawn))
    labels = [_style.label(name) for name in names]
    cells = [cell for curve in drawn for cell in (*curve.clean, *curve.robust)]
    bars = "bars: ± standard deviation over seeds" if any(cell.std for cell in cells) else ""
    said = caption_lines(
        (cell.trust for cell in cells), sum(panel.withheld for panel in panels), spread=bars
    )
    # Many points need room, and a long legend beside panels that stand below each other has more
    # lines in a column.
    crowded = len(labels) > CROWD
    grown = 1.5 if crowded else 1.0
    across = 1 if crowded else min(PANELS_PER_ROW, len(panels))
    down = math.ceil(len(panels) / across)
    size = across * WIDTH * grown, down * HEIGHT * grown
    page = _style.sheet_for(labels, *size, title_lines=len(said))
    lines: dict[str, Line2D] = {}
    for place, panel in enumerate(panels, 1):
        axes = page.add_subplot(down, across, place)
        axes.set_title(one_line(panel.title), loc="left", pad=10)
        for curve in panel.curves:
            line = _line(axes, curve, names.index(curve.name))
            lines.setdefault(curve.name, line)
        axes.set_xlim(_limits([cell for curve in panel.curves for cell in curve.clean]))
        axes.set_ylim(_limits([cell for curve in panel.curves for cell in curve.robust]))
        axes.set_xlabel("clean accuracy (%)")
        axes.set_ylabel(one_line(f"robust accuracy, {panel.column} (%)"))
        axes.grid(True)
    title = "\n".join(said) or None
    _style.legend(page, [lines[name] for name in names], labels, size[0], title=title)
    page.draw_without_rendering()  # computes the sizes used below
    for axes, panel in zip(page.axes, panels, strict=True):
        taken = [
            _marker_box(axes, at)
            for curve in panel.curves
            for at in zip(*_means(curve), strict=True)
        ]
        for curve in panel.curves:
            if curve.labels:
                _label(axes, curve, _colour(names.index(curve.name)), taken)
    return page


def _line(axes: "Axes", curve: TradeoffCurve, place: int) -> "Line2D":
    """Draw a curve with its error bars; return the line that stands for it in the legend."""
    (x, xerr), (y, yerr) = _percent(curve.clean), _percent(curve.robust)
    bars = axes.errorbar(
        x,
        y,
        xerr=xerr,
        yerr=yerr,
        color=_colour(place),
        marker=MARKERS[(place + place // len(COLOURS)) % len(MARKERS)],
        linestyle="-" if curve.labels else "",
        elinewidth=1,
        zorder=3 if curve.labels else 2,
    )
    trusts = [cell.trust for cell in curve.robust]
    draw_bounds(axes, [*zip(x, y, strict=True)], trusts, _colour(place))
    line: Line2D = bars[0]
    return line


def _label(axes: "Axes", curve: TradeoffCurve, colour: str, taken: "list[Bbox]") -> None:
    """Write its label at each point: in full, the value alone, or nothing where there is no room.

    Args:
        taken: boxes of points and labels that are drawn; new labels are added.
    """
    x, y = _means(curve)
    rises = (x[-1] - x[0]) * (y[-1] - y[0]) > 0
    frame = axes.bbox
    for *at, label in sorted(zip(x, y, curve.labels, strict=True), reverse=True):
        # First beside the curve, on either side; then on the curve itself.
        for words, aside, right in product(
            (label, label.partition("=")[2]), (True, False), (True, False)
        ):
            text = _annotate(axes, words, at, right=right, above=(right != rises) == aside)
            box = text.get_window_extent().padded(-1.5)
            inside = frame.x0 < box.x0 and frame.y0 < box.y0 and box.y1 < frame.y1
            if inside and not box.count_overlaps(taken):
                text.set_color(colour)
                taken.append(box)
                break
            text.remove()


def _means(curve: TradeoffCurve) -> tuple[list[float], list[float]]:
    """Return the mean clean and robust accuracies of a curve, in percent."""
    return _percent(curve.clean)[0], _percent(curve.robust)[0]


def _marker_box(axes: "Axes", at: Sequence[float]) -> "Bbox":
    """Return the box, in pixels, that a point occupies on the page."""
    from matplotlib.transforms import Bbox

    x, y = axes.transData.transform(at)
    return Bbox.from_extents(
        x - MARKER_HALF_SIDE, y - MARKER_HALF_SIDE, x + MARKER_HALF_SIDE, y + MARKER_HALF_SIDE
    )


def _annotate(
    axes: "Axes", words: str, at: Sequence[float], *, right: bool, above: bool
) -> "Annotation":
    """Write a label beside a point, on the given side of it."""
    from matplotlib.patheffects import withStroke

    return axes.annotate(
        words,
        (at[0], at[1]),
        (5 if right else -5, 4 if above else -4),
        textcoords="offset points",
        ha="left" if right else "right",
        va="bottom" if above else "top",
        fontsize=9,
        path_effects=[withStroke(linewidth=2.5, foreground="white")],
        zorder=4,
    )


def _colour(place: int) -> str:
    """Return the colour of the curve with this index."""
    return COLOURS[place % len(COLOURS)]


def _percent(cells: Sequence[Cell]) -> tuple[list[float], list[float]]:
    """Return means and standard deviations in percent; 0 for a single seed."""
    return [100 * cell.mean for cell in cells], [100 * (cell.std or 0.0) for cell in cells]


def _limits(cells: Sequence[Cell]) -> tuple[float, float]:
    """Return the limits of an axis, in percent.

    They include error bars, as far as these are within 0 to 100 %, and a margin for labels.
    """
    ends = [at + side * std for at, std in zip(*_percent(cells), strict=True) for side in (-1, 1)]
    middle = (min(ends) + max(ends)) / 2
    low = max(0.0, min(*ends, middle - MIN_SPAN / 2))
    high = min(100.0, max(*ends, middle + MIN_SPAN / 2))
    room = 0.1 * (high - low)
    return low - room, high + room
