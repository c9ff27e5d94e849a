"""Line plots of sweeps: robust accuracy (y axis, percent) over the radius or the number of steps.

Colours tell models apart and dashes attacks; bands are standard deviations over seeds.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustbench_cli.core.safe_text import one_line
from robustbench_cli.figures import _style
from robustbench_cli.figures._bounds import caption_lines, draw_bounds
from robustbench_cli.figures._style import (
    COLOURS,
    DASHES,
    HEIGHT,
    MARKERS,
    PANELS_PER_ROW,
    WIDTH,
)
from robustbench_cli.report.sweep_curves import SweepCurve, SweepPanel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_LINES = 8
"""Number of lines in one panel above which each attack gets a panel of its own."""


def draw(panels: Sequence[SweepPanel], path: Path) -> list[Path]:
    """Write the panels as ``path`` with every ending of a picture; return the files.

    Raises:
        UserError: matplotlib is not installed.
    """
    return _style.save_figure(partial(paint_sweeps, panels), *picture_files(path))


def picture_files(path: Path) -> list[Path]:
    """Return ``path`` with every ending of a picture: PNG, SVG and PDF."""
    return [path.with_name(f"{path.name}{ending}") for ending in _style.IMAGE_FORMATS]


def paint_sweeps(panels: Sequence[SweepPanel]) -> "Figure":
    """Return a page with the panels side by side and one legend below them.

    Args:
        panels: one of them at least has curves.
    """
    withheld = sum(panel.withheld for panel in panels)
    panels = [panel for panel in panels if panel.curves]
    titled = [(panel.title, panel) for panel in panels]
    if any(len(panel.curves) > MAX_LINES for panel in panels):
        titled = [part for panel in panels for part in _by_attack(panel)]
    panels = [panel for _, panel in titled]
    looks = _line_styles([curve for panel in panels for curve in panel.curves])
    across = min(PANELS_PER_ROW, len(panels))
    down = math.ceil(len(panels) / across)
    points = [point for panel in panels for curve in panel.curves for point in curve.points]
    bands = "bands: ± standard deviation over seeds" if any(p.std for p in points) else ""
    said = caption_lines((point.trust for point in points), withheld, spread=bands)
    size = across * WIDTH, down * HEIGHT
    figure = _style.sheet_for(list(looks), *size, title_lines=len(said))
    for place, (title, panel) in enumerate(titled, 1):
        axes = figure.add_subplot(down, across, place)
        axes.set_title(one_line(title), loc="left", pad=10)
        _panel(axes, panel, looks)
    lines = {line.get_label(): line for axes in figure.axes for line in axes.get_lines()}
    _style.legend(
        figure,
        [lines[label] for label in looks],
        list(looks),
        size[0],
        title="\n".join(said) or None,
    )
    return figure


def _by_attack(panel: SweepPanel) -> list[tuple[str, SweepPanel]]:
    """Return a panel per attack, with the attack in its title instead of the legend."""
    attacks: dict[str, list[SweepCurve]] = defaultdict(list)
    for curve in panel.curves:
        attacks[curve.attack].append(replace(curve, attack=""))
    return [
        (f"{attack}: {panel.title}", replace(panel, curves=tuple(curves)))
        for attack, curves in attacks.items()
    ]


@dataclass(frozen=True)
class _LineStyle:
    """The style of one line."""

    colour: str
    marker: str
    dashes: Any
    filled: bool


def _label(curve: SweepCurve) -> str:
    """Return the legend's label of a curve."""
    return _style.label(", ".join(filter(None, (curve.model, curve.attack))))


def _line_styles(curves: Sequence[SweepCurve]) -> dict[str, _LineStyle]:
    """Return the style of each curve by its label.

    Colours tell models apart and dashes attacks; with a single model or attack, colour and marker
    alone tell the curves apart.
    """
    models, attacks = (
        list(dict.fromkeys(getattr(curve, key) for curve in curves)) for key in ("model", "attack")
    )
    looks = {}
    for curve in sorted(curves, key=lambda c: (models.index(c.model), attacks.index(c.attack))):
        model, attack = models.index(curve.model), attacks.index(curve.attack)
        both = len(models) > 1 and len(attacks) > 1
        hue, shape = (model, attack) if both else (model + attack, model + attack)
        looks[_label(curve)] = _LineStyle(
            colour=COLOURS[hue % len(COLOURS)],
            marker=MARKERS[shape % len(MARKERS)],
            dashes=DASHES[attack % len(DASHES)] if both else "-",
            filled=hue // len(COLOURS) % 2 == 0,
        )
    return looks


def _panel(axes: "Axes", panel: SweepPanel, looks: Mapping[str, _LineStyle]) -> None:
    """Draw one panel: its curves, bands, axes and ticks."""
    for curve in panel.curves:
        look = looks[_label(curve)]
        x = [point.at for point in curve.points]
        y = [100 * point.mean for point in curve.points]
        axes.plot(
            x,
            y,
            label=_label(curve),
            color=look.colour,
            marker=look.marker,
            linestyle=look.dashes,
            markerfacecolor=look.colour if look.filled else "white",
            clip_on=False,  # draw markers at 0 % and 100 % in full
            zorder=3,
        )
        trusts = [point.trust for point in curve.points]
        draw_bounds(axes, [*zip(x, y, strict=True)], trusts, look.colour)
        spread = [100 * (point.std or 0.0) for point in curve.points]
        if any(spread):
            low = [max(0.0, mean - std) for mean, std in zip(y, spread, strict=True)]
            high = [min(100.0, mean + std) for mean, std in zip(y, spread, strict=True)]
            axes.fill_between(x, low, high, color=look.colour, alpha=0.15, linewidth=0)
    axes.set_ylim(0, 100)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("robust accuracy (%)")
    axes.grid(True)
    values = sorted({point.at for curve in panel.curves for point in curve.points})
    if panel.over == "eps":
        _over_eps(axes, values, panel.norm)
    else:
        _over_steps(axes, values)


def _over_eps(axes: "Axes", values: Sequence[float], norm: str) -> None:
    """Set up the x axis for radii, in units of 1/255 where all radii are such multiples."""
    levels = [eps * 255 for eps in values if eps]
    # 0.2 equals 51/255, but is meant as 0.2: decimals of three digits stay decimals.
    meant = all(abs(4 * x - round(4 * x)) < 1e-6 and round(x / 255, 3) != x / 255 for x in levels)
    unit = 255 if norm == "Linf" and levels and meant else 1
    top = max(values) or 1.0
    axes.set_xlim(0, top)
    sign = _style.ell(norm)
    axes.set_xlabel(f"radius ({sign}, 1/255)" if unit > 1 else f"radius ({sign})")
    _ticks(axes, {eps: f"{round(eps * unit, 6):.3g}" for eps in values}, lambda eps: eps / top)


def _over_steps(axes: "Axes", values: Sequence[float]) -> None:
    """Set up the x axis for steps, logarithmic where they span more than a decade."""
    low, high = min(values), max(values)
    axes.set_xlabel("steps")

    def place(steps: float) -> float:
        if high > 10 * low:
            return math.log(steps / low) / math.log(high / low)
        return (steps - low) / max(high - low, 1)

    if high > 10 * low:
        axes.set_xscale("log")
        axes.minorticks_off()
    _ticks(axes, {steps: f"{steps:g}" for steps in values}, place)


def _ticks(axes: "Axes", named: Mapping[float, str], place: Callable[[float], float]) -> None:
    """Label the measured values on the x axis, leaving out those that would overlap.

    Args:
        named: the label of each value, in ascending order.
        place: maps a value to its position on the axis, in [0, 1].
    """
    gap = 0.03 + 0.022 * max(map(len, named.values()))
    values = list(named)
    kept, last = values[:1], values[-1]
    for value in values[1:]:
        near = place(value) - place(kept[-1]), place(last) - place(value)
        if value == last or min(near) >= gap:
            kept.append(value)
    axes.set_xticks(kept, [named[value] for value in kept])
