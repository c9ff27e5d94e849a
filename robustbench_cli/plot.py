"""Pictures of sweeps: accuracy over the radius or over the number of steps, as PNG and SVG."""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustbench_cli.curves import Curve, Panel
from robustbench_cli.errors import UserError
from robustbench_cli.records import written

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Told apart by the colour-blind, too (Okabe & Ito), then some more.
COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"),
    *("#7B4F9E", "#8C6D31", "#7F7F7F"),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))
CROWD = 8
"""Lines in one panel, above which each attack gets a panel of its own."""
ACROSS = 3
"""Panels side by side."""
WIDTH, HEIGHT = 4.6, 3.6
"""Inches of one panel."""
_STYLE: Any = {
    "font.size": 11,
    "axes.titlesize": 11,
    "legend.fontsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "lines.linewidth": 1.8,
    "lines.markersize": 5.5,
    "text.parse_math": False,  # a name may hold a dollar sign
    "svg.hashsalt": "advbench",  # the same numbers make the same file
}


def draw(panels: Sequence[Panel], path: Path) -> list[Path]:
    """Write the panels as ``path`` with ``.png`` and with ``.svg``.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ModuleNotFoundError:
        raise UserError("--plot needs matplotlib: pip install 'advbench[plot]'") from None
    titled = [(panel.title, panel) for panel in panels]
    if any(len(panel.curves) > CROWD for panel in panels):
        titled = [part for panel in panels for part in _by_attack(panel)]
    panels = [panel for _, panel in titled]
    looks = _looks([curve for panel in panels for curve in panel.curves])
    across = min(ACROSS, len(panels))
    down = math.ceil(len(panels) / across)
    with mpl.rc_context():
        mpl.rcdefaults()  # a user's own style may hold anything
        mpl.rcParams.update(_STYLE)
        labels = list(looks)
        wide = max(len(label) for label in labels)
        beside = max(1, int(across * WIDTH * 10 / (wide + 6)))
        banded = any(point.std for p in panels for curve in p.curves for point in curve.points)
        legend = 0.25 * (math.ceil(len(labels) / beside) + banded) + 0.2
        # Also the longest name is on the picture.
        size = max(across * WIDTH, 0.08 * wide + 0.7), down * HEIGHT + legend
        figure = Figure(size, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08))
        for place, (title, panel) in enumerate(titled, 1):
            axes = figure.add_subplot(down, across, place)
            axes.set_title(_plain(title), loc="left", pad=10)
            _panel(axes, panel, looks)
        lines = {line.get_label(): line for axes in figure.axes for line in axes.get_lines()}
        figure.legend(
            [lines[label] for label in labels],
            labels,
            loc="outside lower center",
            ncols=min(beside, len(labels)),
            frameon=False,
            handlelength=3,
            title="bands: ± standard deviation over seeds" if banded else None,
            title_fontsize=10,
        )
        return [
            written(
                path.with_name(f"{path.name}.{ending}"),
                lambda part, ending=ending, about=about: figure.savefig(  # type: ignore[misc]
                    part, format=ending, dpi=200, metadata=about
                ),
            )
            # No date and no version: a picture that did not change is the same file.
            for ending, about in (("png", {"Software": None}), ("svg", {"Date": None}))
        ]


def _by_attack(panel: Panel) -> list[tuple[str, Panel]]:
    """A panel for each attack, which its title names instead of the legend."""
    attacks: dict[str, list[Curve]] = defaultdict(list)
    for curve in panel.curves:
        attacks[curve.attack].append(replace(curve, attack=""))
    return [
        (f"{attack}: {panel.title}", replace(panel, curves=tuple(curves)))
        for attack, curves in attacks.items()
    ]


@dataclass(frozen=True)
class _Look:
    colour: str
    marker: str
    dashes: Any
    filled: bool


def _label(curve: Curve) -> str:
    # Of an underscore at the beginning matplotlib makes no label.
    return re.sub(r"^_", " _", _plain(", ".join(filter(None, (curve.model, curve.attack)))))


def _plain(text: str) -> str:
    # Names may hold anything.
    return "".join(c if c.isprintable() else " " for c in text)


def _looks(curves: Sequence[Curve]) -> dict[str, _Look]:
    """Colours tell models apart, dashes attacks; where there is one of these, both tell others."""
    models, attacks = (
        list(dict.fromkeys(getattr(curve, key) for curve in curves)) for key in ("model", "attack")
    )
    looks = {}
    for curve in sorted(curves, key=lambda c: (models.index(c.model), attacks.index(c.attack))):
        model, attack = models.index(curve.model), attacks.index(curve.attack)
        both = len(models) > 1 and len(attacks) > 1
        hue, shape = (model, attack) if both else (model + attack, model + attack)
        looks[_label(curve)] = _Look(
            colour=COLOURS[hue % len(COLOURS)],
            marker=MARKERS[shape % len(MARKERS)],
            dashes=DASHES[attack % len(DASHES)] if both else "-",
            filled=hue // len(COLOURS) % 2 == 0,
        )
    return looks


def _panel(axes: "Axes", panel: Panel, looks: Mapping[str, _Look]) -> None:
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
            clip_on=False,  # a marker at 0 % or 100 % is whole
            zorder=3,
        )
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
    """In 1/255 where all radii are such."""
    levels = [eps * 255 for eps in values if eps]
    # 0.2 is 51/255, too, but nobody means that.
    meant = all(abs(4 * x - round(4 * x)) < 1e-6 and round(x / 255, 3) != x / 255 for x in levels)
    unit = 255 if norm == "Linf" and levels and meant else 1
    top = max(values) or 1.0
    axes.set_xlim(0, top)
    sign = norm.replace("L", "\N{SCRIPT SMALL L}").replace("inf", "∞")
    axes.set_xlabel(f"radius ({sign}, 1/255)" if unit > 1 else f"radius ({sign})")
    _ticks(axes, {eps: f"{round(eps * unit, 6):.3g}" for eps in values}, lambda eps: eps / top)


def _over_steps(axes: "Axes", values: Sequence[float]) -> None:
    """Logarithmic where they span more than a decade."""
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
    """Measured values at the axis, none so near to another that they overlap."""
    gap = 0.03 + 0.022 * max(map(len, named.values()))
    values = list(named)
    kept, last = values[:1], values[-1]
    for value in values[1:]:
        near = place(value) - place(kept[-1]), place(last) - place(value)
        if value == last or min(near) >= gap:
            kept.append(value)
    axes.set_xticks(kept, [named[value] for value in kept])
