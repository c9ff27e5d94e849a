"""Panels of curves over one quantity, with one legend: what several figures of records draw."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustbench_cli.core.safe_text import one_line
from robustbench_cli.figures import _style
from robustbench_cli.figures._style import COLOURS, DASHES, HEIGHT, PANELS_PER_ROW, WIDTH

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Page


@dataclass(frozen=True, kw_only=True)
class DrawnCurve:
    """A line through points in the units of its panel; a step function stays until it drops."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    steps: bool = False


@dataclass(frozen=True, kw_only=True)
class CurvePanel:
    """Curves that can be compared."""

    title: str
    over: str
    """The label of the x axis."""
    shown: str
    """The label of the y axis."""
    curves: tuple[DrawnCurve, ...]
    diagonal: bool = False
    """Draw the line of what tells nothing, from (0, 0) to (100, 100)."""
    marks: tuple[float, ...] = ()
    """Places on the x axis where a dotted line is drawn."""


def paint_curves(panels: Sequence[CurvePanel], said: str = "") -> "Page":
    """Return a page with the panels side by side and one legend below them.

    Args:
        said: lines above the legend; empty: none.
    """
    names = list(dict.fromkeys(curve.name for panel in panels for curve in panel.curves))
    labels = [_style.label(name) for name in names]
    across = min(PANELS_PER_ROW, len(panels))
    down = math.ceil(len(panels) / across)
    size = across * WIDTH, down * HEIGHT
    page = _style.sheet_for(labels, *size, title_lines=len(said.splitlines()))
    lines = {}
    for place, panel in enumerate(panels, 1):
        axes = page.add_subplot(down, across, place)
        axes.set_title(one_line(panel.title), loc="left", pad=10)
        for mark in panel.marks:
            axes.axvline(mark, color="#999999", linestyle=":", linewidth=1.2, zorder=1)
        if panel.diagonal:
            axes.plot([0, 100], [0, 100], color="#999999", linewidth=1.0, zorder=1)
        for curve in panel.curves:
            at = names.index(curve.name)
            (lines[curve.name],) = axes.plot(
                curve.x,
                curve.y,
                color=COLOURS[at % len(COLOURS)],
                linestyle=DASHES[at // len(COLOURS) % len(DASHES)],
                drawstyle="steps-pre" if curve.steps else "default",
                clip_on=False,
                zorder=3,
            )
        axes.set_xlim(0, max((x for curve in panel.curves for x in curve.x), default=0) or 1)
        axes.set_ylim(0, 100)
        axes.set_yticks(range(0, 101, 20))
        axes.set_xlabel(panel.over)
        axes.set_ylabel(panel.shown)
        axes.grid(True)
    _style.legend(page, [lines[name] for name in names], labels, size[0], title=said or None)
    return page
