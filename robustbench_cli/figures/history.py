"""Accuracy over the epochs of training, which shows robust overfitting (Rice et al., 2020), figure
1.

https://arxiv.org/abs/2002.11569
"""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, ClassVar

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.safe_text import one_line
from robustbench_cli.figures import (
    FIGURES,
    Figure,
    Material,
    Painter,
    _style,
    few,
    legend_names,
    setting_label,
)
from robustbench_cli.figures._style import COLOURS, HEIGHT, MARKERS, WIDTH
from robustbench_cli.report import seed_groups
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
_BAND: Any = {"alpha": 0.18, "linewidth": 0, "zorder": 2}
_DROP: Any = {"linestyle": ":", "linewidth": 1.2, "zorder": 1}

HistoryLine = Sequence[tuple[int, float]]
"""Pairs of an epoch, counted from 1, and an accuracy in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class Track:
    """The accuracies over the epochs of one run, or the mean of several seeds."""

    name: str
    lines: Mapping[tuple[str, str], HistoryLine]
    """Accuracies by (``clean`` or ``robust``, split)."""
    kept: int | None
    """Epoch whose weights the run kept."""
    drops: tuple[int, ...]
    """Epochs after which the learning rate dropped."""
    spread: Mapping[tuple[str, str], Sequence[float]] = field(default_factory=dict)
    """Of several seeds: the standard deviation at each point of ``lines``."""
    seeds: "tuple[Track, ...]" = ()
    """Of several seeds: each by itself."""

    @property
    def each(self) -> "tuple[Track, ...]":
        """The single runs."""
        return self.seeds or (self,)

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
    the drops of the learning rate.  Runs that differ in their seed only are one curve, the mean,
    in a band of one standard deviation to either side, with a star for each seed.  Held-out images
    are there where a run was given ``--set train.validation=N``; test images, as in the paper, with
    ``--set train.select=oracle``.
    """

    of_training: ClassVar[bool] = True

    def prepare(self, material: Material) -> Painter:
        runs = [*material.trained().values()]
        recorded = material.recorded()
        groups = _joined_runs(recorded.named or runs, recorded.runs)
        settings = [setting_label(group[0]) for group in groups]
        same = len(set(settings)) == 1
        tracks, bare = [], []
        names = legend_names([group[0] for group in groups])
        for group, name, where in zip(groups, names, settings, strict=True):
            said = name if same else f"{name} ({where})"
            tracks.append(mean_track([track(run, said) for run in group]))
            bare += [repr(run.id) for run in group if tracks[-1].on == "train"]
        if bare:
            material.feedback.note(
                f"run{'s' * (len(bare) > 1)} {few(bare)} measured no held-out images: only "
                "training curves are drawn (advbench train ... --set train.validation=1000 holds "
                "some out, --set train.select=oracle measures the test set)"
            )
        return partial(paint_history, tracks, settings[0] if same else "")


def _joined_runs(named: Sequence[Run], every: Sequence[Run]) -> list[list[Run]]:
    """Return the named runs, those together that differ in their seed only.

    Args:
        every: all records, which tell how the runs were made that these build on.
    """
    made = seed_groups.trained(every)
    groups: dict[Hashable, list[Run]] = defaultdict(list)
    for run in named:
        known = made.get(run.id)
        groups[seed_groups.group_key(known) if known else run.id].append(run)
    return [*groups.values()]


def mean_track(tracks: Sequence[Track]) -> Track:
    """Return the mean over seeds, at the epochs that all of them measured; of one run itself.

    Raises:
        UserError: they have no measured epoch in common.
    """
    first, *others = tracks
    if not others:
        return first
    lines: dict[tuple[str, str], HistoryLine] = {}
    spread: dict[tuple[str, str], Sequence[float]] = {}
    for key in first.lines:
        each = [dict(one.lines.get(key, ())) for one in tracks]
        epochs = sorted(set.intersection(*(set(line) for line in each)))
        if epochs:
            lines[key] = [(epoch, fmean(line[epoch] for line in each)) for epoch in epochs]
            spread[key] = [stdev(line[epoch] for line in each) for epoch in epochs]
    if not lines:
        raise UserError(f"the {len(tracks)} seeds of {first.name!r} share no measured epoch")
    kept = {one.kept for one in tracks}
    return Track(
        name=f"{first.name} ({len(tracks)} seeds)",
        lines=lines,
        kept=first.kept if len(kept) == 1 else None,
        drops=first.drops if len({one.drops for one in tracks}) == 1 else (),
        spread=spread,
        seeds=tuple(tracks),
    )


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
            marks: Any = (
                {"marker": marker, "markersize": 3.5} if len(line) <= MAX_MARKED_EPOCHS else {}
            )
            axes.plot(*zip(*line, strict=True), color=colour, **_LINE[split == "train"], **marks)
            if deviations := track.spread.get((what, split)):
                pairs = [*zip(line, deviations, strict=True)]
                under = [max(0.0, y - 100 * std) for (_, y), std in pairs]
                above = [min(100.0, y + 100 * std) for (_, y), std in pairs]
                axes.fill_between([x for x, _ in line], under, above, color=colour, **_BAND)
            for one in track.each:
                own = dict(one.lines.get((what, split), ()))
                if split == track.on and one.kept in own:
                    axes.plot(one.kept, 100 * own[one.kept], color=colour, **_KEPT)
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
    from matplotlib.patches import Patch

    splits = {split for track in tracks for _, split in track.lines}
    found: dict[str, Artist] = {
        says: Line2D([], [], color="#444444", **_LINE[split == "train"])
        for split, says in _SPLITS.items()
        if split in splits
    }
    if any(track.spread for track in tracks):
        found["± standard deviation over seeds"] = Patch(color="#444444", **_BAND)
    if any(one.kept for track in tracks for one in track.each):
        several = any(track.seeds for track in tracks)
        which = "kept epoch of each seed" if several else "kept epoch"
        found[which] = Line2D([], [], color="#444444", linestyle="", **_KEPT)
    if any(track.drops for track in tracks):
        found["learning rate drop"] = Line2D([], [], color="#999999", **_DROP)
    return found
