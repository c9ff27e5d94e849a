"""Numbers that are not sound, in figures: arrows at upper bounds, and lines that say the rest."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from robustbench_cli.report.number_trust import NumberTrust

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LENGTH = 13
"""The length of an arrow, in points."""


def draw_bounds(
    axes: "Axes",
    points: Sequence[tuple[float, float]],
    trusts: Sequence[NumberTrust | None],
    colour: str,
) -> None:
    """Draw an arrow that points down from every point whose accuracy is an upper bound.

    Args:
        points: x and y in the units of the axes, the accuracy on the y axis.
        trusts: the trust in each of them.
    """
    for point, trust in zip(points, trusts, strict=True):
        if trust is not None and trust.trust == "upper bound":
            axes.annotate(
                "",
                point,
                (0, -_LENGTH),
                textcoords="offset points",
                arrowprops={"arrowstyle": "<-", "color": colour, "shrinkA": 0, "shrinkB": 2},
                annotation_clip=False,
                zorder=4,
            )


def caption_lines(
    trusts: Iterable[NumberTrust | None], withheld: int, *, spread: str = ""
) -> list[str]:
    """Return the lines above a legend: what bars or bands are, and what numbers are not sound.

    Args:
        trusts: those of all numbers that are drawn.
        withheld: how many numbers are not drawn, because they mean nothing.
        spread: the meaning of bars or bands; empty: there are none.
    """
    known = [each for each in trusts if each is not None]
    lines = {
        spread: bool(spread),
        "↓ an upper bound: the truth is lower": any(e.trust == "upper bound" for e in known),
        "° some numbers were not checked, or not in full": any(e.waived for e in known),
        f"not drawn: {withheld} number(s) that mean nothing": withheld > 0,
    }
    return [line for line, applies in lines.items() if applies]
