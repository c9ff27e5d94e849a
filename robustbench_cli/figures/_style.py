"""Colours, sizes and file formats that all figures share."""

import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustbench_cli.core.atomic_files import write_atomically
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.safe_text import one_line

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

# The palette of Okabe & Ito, which the colour-blind can tell apart, and three more.
COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"),
    *("#7B4F9E", "#8C6D31", "#7F7F7F"),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))
WIDTH, HEIGHT = 4.6, 3.6
"""Size of one panel, in inches."""
STYLE: Any = {
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
# No date and no version: a picture that did not change is the same file.
IMAGE_FORMATS: dict[str, Any] = {".png": {"Software": None}, ".svg": {"Date": None}}
"""Accepted endings of a picture, each with the metadata of its file."""


def needed() -> None:
    """Check that matplotlib is installed.

    Raises:
        UserError: it is not.
    """
    try:
        import matplotlib as mpl  # noqa: F401
    except ModuleNotFoundError:
        raise UserError(
            "pictures need matplotlib: pip install '.[plot]' where advbench is cloned"
        ) from None


def save_figure(paint: Callable[[], "Figure"], *files: Path) -> list[Path]:
    """Draw once, and write every file in the format of its ending; return the files.

    Raises:
        UserError: matplotlib is not installed.
    """
    needed()
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()  # a user's own style must not change the figure
        mpl.rcParams.update(STYLE)
        figure = paint()
        endings = [file.suffix.lower() for file in files]
        return [
            write_atomically(
                file,
                partial(figure.savefig, format=ending[1:], dpi=200, metadata=IMAGE_FORMATS[ending]),
            )
            for file, ending in zip(files, endings, strict=True)
        ]


def blank_page(width: float, height: float) -> "Figure":
    """Return an empty page of this size in inches, laid out so that nothing overlaps."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure((width, height), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08))


def sheet_for(
    labels: Sequence[str], width: float, height: float, *, title_lines: int = 0
) -> "Figure":
    """Return a page with room for panels and, below them, for a legend.

    Args:
        labels: the legend's labels.
        width: of all panels together, in inches.
        height: of all panels together, in inches.
        title_lines: of the legend's title.
    """
    down = math.ceil(len(labels) / _labels_per_line(labels, width))
    longest = max(len(label) for label in labels)
    # Wide enough for the longest label.
    return blank_page(max(width, 0.08 * longest + 0.7), height + 0.25 * (down + title_lines) + 0.2)


def legend(
    figure: "Figure",
    handles: Sequence["Artist"],
    labels: Sequence[str],
    width: float,
    *,
    title: str | None = None,
) -> None:
    """Draw a legend below the panels.

    Args:
        width: of all panels together, in inches.
    """
    figure.legend(
        list(handles),
        list(labels),
        loc="outside lower center",
        ncols=min(_labels_per_line(labels, width), len(labels)),
        frameon=False,
        handlelength=3,
        title=title,
        title_fontsize=10,
    )


def _labels_per_line(labels: Sequence[str], width: float) -> int:
    """Return the number of labels that fit into one line of the legend."""
    return max(1, int(width * 10 / (max(map(len, labels)) + 6)))


def label(text: str) -> str:
    """Return a name in the form that matplotlib accepts as a legend's label."""
    # matplotlib leaves labels with a leading underscore out of legends.
    return re.sub(r"^_", " _", one_line(text))


def ell(norm: str) -> str:
    """Return a norm as papers write it: a small script l, and the infinity sign."""
    return norm.replace("L", "\N{SCRIPT SMALL L}").replace("inf", "∞")
