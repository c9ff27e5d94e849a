"""The three pictures of an audit's page: accuracy over the radius, margin over steps, images."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from robustbench_cli.core.safe_text import one_line
from robustbench_cli.core.threat_text import format_eps
from robustbench_cli.figures import _style
from robustbench_cli.figures._style import COLOURS, DASHES, MARKERS
from robustbench_cli.runs.audit_result import AuditResult
from robustbench_cli.runs.records import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Sheet
    from numpy import ndarray

AUDIT_PICTURES = {
    "radius": "audit-radius.png",
    "margin": "audit-margin.png",
    "images": "audit-images.png",
}
"""The names of the files, by what they show."""
CHANCE = "#999999"
COLUMNS = 5
"""Images side by side."""


def draw_audit(folder: Path, run: Run) -> dict[str, str]:
    """Draw the pictures of an audit into its folder; return the files by what they show.

    What the record holds no numbers for is left out; of numbers that mean nothing there are none.

    Raises:
        UserError: matplotlib is not installed, or the file with the images is damaged.
    """
    _style.needed()
    if any(outcome.trust == "withheld" for outcome in run.attacks.values()):
        return {}
    result, painters = run.audit or AuditResult(), {}
    if any(each.check == "radius" for each in result.attacks):
        painters["radius"] = partial(_paint_radius, run, result)
    if result.curves:
        painters["margin"] = partial(_paint_margins, result)
    if result.examples:
        from robustbench_cli.evaluation.journal import read_arrays

        arrays = read_arrays(folder / result.examples["file"])
        painters["images"] = partial(_paint_images, arrays)
    for what, paint in painters.items():
        _style.save_figure(paint, folder / AUDIT_PICTURES[what])
    return {what: AUDIT_PICTURES[what] for what in painters}


def _paint_radius(run: Run, result: AuditResult) -> "Sheet":
    """Return accuracy over the radius, with the claim and what is left at the claimed radius."""
    grid = [each for each in result.attacks if each.check == "radius"]
    threat = run.settings.threat
    own = [each for each in result.attacks if each.same_radius and each.check != "radius"]
    figure = _style.blank_page(6.4, 4.1)
    axes = figure.add_subplot()
    points = [(0.0, run.clean_accuracy or 0.0), *((each.eps, each.left) for each in grid)]
    name = grid[0].label.partition("@")[0]
    axes.plot(
        [eps for eps, _ in points],
        [100 * left for _, left in points],
        color=COLOURS[0],
        marker=MARKERS[0],
        label=_style.label(f"{name}, each radius anew"),
    )
    least = min(own, key=lambda each: each.left, default=None)
    for outcome in run.attacks.values():
        share = outcome.robust_accuracy
        if least and least.left < share:
            text = _style.label(f"left after {least.label}")
            axes.plot(threat.eps, 100 * least.left, "v", color=COLOURS[1], label=text, markersize=9)
    if result.claim:
        axes.plot(
            threat.eps,
            100 * result.claim.accuracy,
            "*",
            color=COLOURS[4],
            label="the claim",
            markersize=13,
        )
    axes.axvline(threat.eps, color=CHANCE, linewidth=1, linestyle=DASHES[2])
    axes.annotate(
        f"eps {format_eps(threat.eps)}",
        (threat.eps, 101),
        annotation_clip=False,
        ha="center",
        va="bottom",
        fontsize=9,
        color="#555555",
    )
    axes.set_xscale("symlog", linthresh=max(1e-9, min(each.eps for each in grid)))
    ticks = [0.0, *(each.eps for each in grid)]
    axes.set_xticks(ticks, [format_eps(round(eps, 4)) for eps in ticks])
    axes.minorticks_off()
    axes.set_xlim(left=0)
    axes.set_ylim(-2, 100)
    axes.set_xlabel(f"radius ({threat.norm})")
    axes.set_ylabel("accuracy, %")
    axes.grid(axis="y")
    _legend(figure, axes)
    return figure


def _paint_margins(result: AuditResult) -> "Sheet":
    """Return the best margin so far over the steps of each attack, and the share it broke."""
    figure = _style.blank_page(7.6, 3.6)
    upper, lower = figure.subplots(1, 2)
    for number, curve in enumerate(result.curves):
        x = [step / max(1, curve.steps[-1]) for step in curve.steps]
        look = {
            "color": COLOURS[number],
            "linestyle": DASHES[number],
            "label": _style.label(f"{curve.label} ({curve.steps[-1]} steps)"),
        }
        upper.plot(x, curve.margins, **look)
        lower.plot(x, [100 * share for share in curve.broken], **look)
    upper.axhline(0, color=CHANCE, linewidth=1)
    _name(upper, "margin / range of the logits", "highest margin so far, mean")
    count = result.curves[0].images
    _name(lower, "images broken so far, %", "of one image" if count == 1 else f"of {count} images")
    lower.set_ylim(-3, 103)
    _legend(figure, upper)
    return figure


def _legend(figure: "Sheet", axes: "Axes") -> None:
    """Put the legend under the axes, a line for each entry: labels of ensembles are long."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", frameon=False, ncols=1)


def _name(axes: "Axes", what: str, title: str) -> None:
    axes.set_xlabel("part of the attack's steps")
    axes.set_ylabel(what)
    axes.set_title(title, loc="left")
    axes.grid(axis="y")


def _prediction(arrays: "dict[str, ndarray]", column: int) -> str:
    """Return what the model says of an adversarial image; of a randomised one, how often."""
    right = float(arrays["right"][column])
    if right > 0:
        return f"right in {right:.0%} of draws"
    return f"predicted: {arrays['names'][arrays['prediction'][column]]}"


def _paint_images(arrays: "dict[str, ndarray]") -> "Sheet":
    """Return rows of images: clean, adversarial, and their difference, with labels."""
    x, x_adv = arrays["x"], arrays["x_adv"]
    count = min(COLUMNS, len(x))
    gain = max(1e-12, float(abs(x_adv - x).max()))
    figure = _style.blank_page(1.45 * COLUMNS + 0.5, 4.9)
    # Empty columns keep the size of an image the same, however few there are.
    panels = figure.subplots(3, COLUMNS, squeeze=False)
    for axes in panels[:, count:].flatten():
        axes.set_visible(False)
    rows = ("clean", "adversarial", "difference")
    for column in range(count):
        difference = (x_adv[column] - x[column]) / (2 * gain) + 0.5
        titles = (
            f"true: {arrays['names'][arrays['label'][column]]}",
            _prediction(arrays, column),
            f"x {1 / (2 * gain):.3g}",
        )
        for row, image in enumerate((x[column], x_adv[column], difference)):
            axes = panels[row][column]
            picture = image.transpose(1, 2, 0).clip(0, 1)
            grey = picture.shape[2] < 3
            axes.imshow(
                picture[..., 0] if grey else picture[..., :3],
                cmap="gray" if grey else None,
                vmin=0,
                vmax=1,
                interpolation="nearest",
            )
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            axes.set_title(one_line(str(titles[row])), fontsize=9, pad=3)
            if column == 0:
                axes.set_ylabel(rows[row], fontsize=10)
    figure.suptitle(
        one_line(f"broken by {arrays['attack']}, missed by the claimed attack"), fontsize=10
    )
    return figure
