"""Colours, sizes and file formats that all figures share."""

import io
import math
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustbench_cli.core.atomic_files import write_atomically
from robustbench_cli.core.errors import UserError, install_command
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
PANELS_PER_ROW = 3
"""Largest number of panels side by side."""
LINES_BELOW = 5
"""The most lines of a legend below the panels; a longer one stands beside them."""
BROADEST = 32
"""The most letters in a line of a legend that stands beside the panels."""
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
    "pdf.fonttype": 42,  # letters that can be searched, and that journals accept
}
# No date and no version: a picture that did not change is the same file.
IMAGE_FORMATS: dict[str, Any] = {
    ".png": {"Software": None},
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
"""Accepted endings of a picture, each with the metadata of its file."""


def needed() -> None:
    """Check that matplotlib is installed.

    Raises:
        UserError: it is not.
    """
    try:
        import matplotlib as mpl  # noqa: F401
    except ModuleNotFoundError:
        raise UserError(f"pictures need matplotlib: {install_command('plot')}") from None


def save_figure(paint: Callable[[], "Figure"], *files: Path) -> list[Path]:
    """Draw once, and write every file in the format of its ending; return the files.

    Raises:
        UserError: matplotlib is not installed.
    """
    needed()
    with _own_style():
        figure = paint()
        endings = [file.suffix.lower() for file in files]
        return [
            write_atomically(
                file,
                partial(figure.savefig, format=ending[1:], dpi=200, metadata=IMAGE_FORMATS[ending]),
            )
            for file, ending in zip(files, endings, strict=True)
        ]


def svg_source(paint: Callable[[], "Figure"], name: str) -> str:
    """Return a figure as an ``<svg>`` element for a page of HTML.

    Its ground is transparent; it has no comments, and every id in it begins with ``name``, so that
    several figures may stand in one page.

    Raises:
        UserError: matplotlib is not installed.
    """
    needed()
    written = io.BytesIO()
    with _own_style():
        paint().savefig(written, format="svg", transparent=True, metadata=IMAGE_FORMATS[".svg"])
    text = _NOT_DRAWN.sub("", written.getvalue().decode())
    text = re.sub(r'\b(id=")|(url\(#|href="#)', rf"\g<0>{name}-", text[text.index("<svg") :])
    return re.sub(r"\n\s*\n", "\n", text)


_NOT_DRAWN = re.compile(r"<!--.*?-->|<metadata>.*?</metadata>", re.S)


@contextmanager
def _own_style() -> Iterator[None]:
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()  # a user's own style must not change the figure
        mpl.rcParams.update(STYLE)
        yield


def blank_page(width: float, height: float) -> "Figure":
    """Return an empty page of this size in inches, laid out so that nothing overlaps."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure((width, height), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08))


def sheet_for(
    labels: Sequence[str], width: float, height: float, *, title_lines: int = 0
) -> "Figure":
    """Return a page with room for panels and for a legend below them, or beside if it is long.

    Args:
        labels: the legend's labels.
        width: of all panels together, in inches.
        height: of all panels together, in inches.
        title_lines: of the legend's title.
    """
    if _beside(labels, width):
        columns = _columns_beside(labels, height, title_lines)
        longest = max(len(line) for text in _folded(labels) for line in text.splitlines())
        return blank_page(width + columns * (0.085 * longest + 0.75), height)
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
    """Draw a legend below the panels, or beside them if it is long.

    Args:
        width: of all panels together, in inches.
    """
    beside = _beside(labels, width)
    lines = len(title.splitlines()) if title else 0
    columns = (
        _columns_beside(labels, figure.get_figheight(), lines)
        if beside
        else min(_labels_per_line(labels, width), len(labels))
    )
    figure.legend(
        list(handles),
        _folded(labels) if beside else list(labels),
        loc="outside right upper" if beside else "outside lower center",
        ncols=columns,
        frameon=False,
        handlelength=1.5 if beside else 3,
        columnspacing=1.2 if beside else 2.0,
        title=title,
        title_fontsize=10,
    )


def _beside(labels: Sequence[str], width: float) -> bool:
    """Return True if a legend would be too long below the panels."""
    return math.ceil(len(labels) / _labels_per_line(labels, width)) > LINES_BELOW


def _columns_beside(labels: Sequence[str], height: float, title_lines: int) -> int:
    """Return the number of columns in which a legend is no higher than the panels."""
    lines = sum(text.count("\n") + 1.4 for text in _folded(labels))
    room = max(4.0, (height - 0.2) / 0.17 - 1.4 * title_lines)
    return math.ceil(lines / room)


def _folded(labels: Sequence[str]) -> list[str]:
    """Return labels in lines of at most ``BROADEST`` letters, as far as words allow.

    The section of a setting is left out: ``epochs=20`` for ``train.epochs=20``.
    """
    short = [re.sub(r"\b[a-z]+\.(?=\w+=)", "", text) for text in labels]
    kept = short if len(set(short)) == len(set(labels)) else labels
    return [
        textwrap.fill(text, BROADEST, break_long_words=False, break_on_hyphens=False)
        for text in kept
    ]


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
