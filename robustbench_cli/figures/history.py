"""Accuracy over the epochs of training, which shows robust overfitting (Rice et al., 2020), figure
1.

https://arxiv.org/abs/2002.11569
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.safe_text import one_line
from robustbench_cli.figures import (
    FIGURES,
    Figure,
    Material,
    Painter,
    _style,
    legend_names,
    setting_label,
)
from robustbench_cli.figures._style import COLOURS, HEIGHT, MARKERS, WIDTH
from robustbench_cli.runs.records import Run

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Page

_SPLITS = {"train": "training images", "val": "held-out images", "test": "test images"}
"""Legend of the images that accuracies are measured on; a run has at most one of the last two."""
PANELS = {"clean": "clean accuracy (%)", "robust": "robust accuracy, PGD-10 (%)"}
MAX_MARKED_EPOCHS = 40
"""Number of epochs above which points get no marker."""
_LINE: dict[bool, Any] = {
    True: {"linestyle": (0, (4, 1.5)), "linewidth": 1.4, "clip_on": False},
    False: {"linestyle": "-", "clip_on": False, "zorder": 3},
}
"""Style of curves on training images (True) and on all others (False)."""
_STAR: Any = {"marker": "*", "markersize": 13, "markeredgecolor": "white"}
_KEPT: Any = {**_STAR, "clip_on": False, "zorder": 4}
_DROP: Any = {"linestyle": ":", "linewidth": 1.2, "zorder": 1}

HistoryLine = Sequence[tuple[int, float]]
"""Pairs of an epoch, counted from 1, and an accuracy in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class Track:
    """The accuracies of one run over its epochs."""

    name: str
    lines: Mapping[tuple[str, str], HistoryLine]
    """Accuracies by (``clean`` or ``robust``, split)."""
    kept: int | None
    """Epoch whose weights the run kept."""
    drops: tuple[int, ...]
    """Epochs after which the learning rate dropped."""

    @property
    def on(self) -> str:
        """The split that shows generalisation: held-out or test images, else training images."""
        return max((split for _, split in self.lines), key=[*_SPLITS].index)


@FIGURES.register("history")
@dataclass(frozen=True, kw_only=True)
class History(Figure):
    """Clean and robust accuracy over epochs, on training and held-out images: robust overfitting.

    Two panels: clean accuracy and robust accuracy under PGD-10 in evaluation mode, as training
    records it, both in percent over the epoch; a star marks the epoch that was kept, dotted lines
    the drops of the learning rate.  Held-out images are there where a run was given ``--set
    train.validation=N``; test images, as in the paper, with ``--set train.select=oracle``.
    """

    def prepare(self, material: Material) -> Painter:
        runs = list(material.trained().values())
        settings = [setting_label(run) for run in runs]
        same = len(set(settings)) == 1
        tracks = []
        for run, name, where in zip(runs, legend_names(runs), settings, strict=True):
            tracks.append(track(run, name if same else f"{name} ({where})"))
            if tracks[-1].on == "train":
                material.feedback.note(
                    f"run {run.id!r} measured no held-out images: only its training curves are "
                    "drawn (advbench train ... --set train.validation=1000 holds some out, "
                    "--set train.select=oracle measures the test set)"
                )
        return partial(paint_history, tracks, settings[0] if same else "")


def track(run: Run, name: str) -> Track:
    """Return the accuracies of a run over its epochs, from its record.

    Raises:
        UserError: no accuracy was measured.
    """
    lines = {
        (what, split): [
            (int(row["epoch"] or 0), float(share))
            for row in run.history
            if (share := row.get(f"{split}_{what}")) is not None
        ]
        for what in PANELS
        for split in _SPLITS
    }
    if not any(lines.values()):
        raise UserError(f"run {run.id!r} has measured no accuracies over its epochs so far")
    return Track(
        name=name,
        lines={key: line for key, line in lines.items() if line},
        kept=run.checkpoint.epoch if run.checkpoint else None,
        drops=drops([(int(row["epoch"] or 0), float(row.get("lr") or 0)) for row in run.history]),
    )


def drops(rates: HistoryLine) -> tuple[int, ...]:
    """Return the epochs after which the learning rate dropped between stretches of constant rate.

    A schedule that falls all the time, such as cosine, has none.

    Args:
        rates: pairs of an epoch and its learning rate.
    """
    flat = {epoch for (before, old), (epoch, new) in pairwise(rates) if new == old}
    flat |= {before for (before, old), (_, new) in pairwise(rates) if new == old}
    return tuple(
        before
        for (before, old), (epoch, new) in pairwise(rates)
        if new < old and {before, epoch} & flat
    )


def paint_history(tracks: Sequence[Track], title: str) -> "Page":
    """Return a page with clean accuracy on the left, robust accuracy on the right; a colour per
    run."""
    names = [_style.label(track.name) for track in tracks]
    styles = _style_handles(tracks)
    labels = [*names, *styles]
    size = len(PANELS) * WIDTH, HEIGHT
    page = _style.sheet_for(labels, *size)
    for place, (what, says) in enumerate(PANELS.items(), 1):
        axes = page.add_subplot(1, len(PANELS), place)
        axes.set_ylabel(says)
        _panel(axes, tracks, what)
    page.axes[0].set_title(one_line(title), loc="left", pad=10)
    _style.legend(page, [*_colour_handles(names), *styles.values()], labels, size[0])
    return page


def _panel(axes: "Axes", tracks: Sequence[Track], what: str) -> None:
    """Draw the curves of one kind of accuracy, ``clean`` or ``robust``."""
    from matplotlib.ticker import MaxNLocator

    shared = len({track.drops for track in tracks if track.drops}) == 1
    for at, track in enumerate(tracks):
        colour, marker = COLOURS[at % len(COLOURS)], MARKERS[at // len(COLOURS) % len(MARKERS)]
        for epoch in track.drops:
            axes.axvline(epoch, color="#999999" if shared else colour, **_DROP)
        for split in _SPLITS:
            line = [(epoch, 100 * share) for epoch, share in track.lines.get((what, split), ())]
            if not line:
                continue
            few: Any = (
                {"marker": marker, "markersize": 3.5} if len(line) <= MAX_MARKED_EPOCHS else {}
            )
            axes.plot(*zip(*line, strict=True), color=colour, **_LINE[split == "train"], **few)
            if split == track.on and track.kept in dict(line):
                axes.plot(track.kept, dict(line)[track.kept], color=colour, **_KEPT)
    last = max(epoch for track in tracks for line in track.lines.values() for epoch, _ in line)
    lines = [track.lines.get((what, split), ()) for track in tracks for split in _SPLITS]
    lowest = min((share for line in lines for _, share in line), default=0.0)
    low = min(80, 20 * int(5 * lowest))
    axes.set_xlim(min(1, last - 1), last)
    axes.set_ylim(low, 100)
    axes.set_yticks(range(low, 101, 20 if low < 60 else (100 - low) // 4))
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(True)


def _colour_handles(names: Sequence[str]) -> "list[Artist]":
    """Return a legend handle per run, in its colour."""
    from matplotlib.lines import Line2D

    return [Line2D([], [], color=COLOURS[at % len(COLOURS)]) for at, _ in enumerate(names)]


def _style_handles(tracks: Sequence[Track]) -> "dict[str, Artist]":
    """Return the legend's handles of line styles and marks, by label, in grey."""
    from matplotlib.lines import Line2D

    splits = {split for track in tracks for _, split in track.lines}
    found: dict[str, Artist] = {
        says: Line2D([], [], color="#444444", **_LINE[split == "train"])
        for split, says in _SPLITS.items()
        if split in splits
    }
    if any(track.kept for track in tracks):
        found["kept epoch"] = Line2D([], [], color="#444444", linestyle="", **_KEPT)
    if any(track.drops for track in tracks):
        found["learning rate drop"] = Line2D([], [], color="#999999", **_DROP)
    return found
