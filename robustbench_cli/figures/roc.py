"""ROC curves of detectors: errors that are flagged over clean images that are flagged.

As in figure 4 of Shan et al. (2020), https://arxiv.org/abs/1904.08554.
"""

from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from robustbench_cli.core.errors import UserError
from robustbench_cli.figures import FIGURES, Figure, Material, Painter, few, setting_label
from robustbench_cli.figures._curves import CurvePanel, DrawnCurve, paint_curves
from robustbench_cli.report.example_files import ExamplesFile, MissingVerdicts
from robustbench_cli.report.number_trust import attack_trust, clean_trust
from robustbench_cli.runs.records import Run


@dataclass(frozen=True, kw_only=True)
class ScoredPair:
    """A detector under an attack, of a run of ``advbench detect eval``, with the scores of both."""

    run: Run
    detector: str
    attack: str
    scores: ExamplesFile


@FIGURES.register("roc")
@dataclass(frozen=True, kw_only=True)
class Roc(Figure):
    """What detectors flag of the errors under an attack, from runs of detect eval; or from all.

    x axis: the share of clean images that is flagged, y axis: the share of errors under the attack
    that is flagged, both in percent, at every threshold.  Dotted lines stand at 1 and 5 % of clean
    images, where advbench detect eval prints accuracies; the diagonal is what chance flags.  These
    attacks do not know of the detector, unless their names say so.
    """

    def prepare(self, material: Material) -> Painter:
        recorded = material.recorded()
        panels: dict[str, list[ScoredPair]] = defaultdict(list)
        for folder, run in recorded.placed.items():
            if run.kind != "detect" or run.status != "ok" or "file" not in run.scores:
                continue
            if not recorded.selects(run):
                continue
            for pair in _pairs(folder, run, material):
                panels[f"{setting_label(run)}, n {run.n}"].append(pair)
        if not panels:
            of = f" of {few([run.id for run in recorded.named])}" if recorded.named else ""
            raise UserError(
                f"no scores of a detector{of} to draw; make them: advbench detect fit and "
                "advbench detect eval --attack pgd20"
            )
        try:
            drawn = [_panel(title, pairs) for title, pairs in panels.items()]
        except MissingVerdicts as error:
            raise UserError(f"the scores of each image are needed, but {error}") from None
        return partial(paint_curves, drawn)


def _pairs(folder: Path, run: Run, material: Material) -> list[ScoredPair]:
    """Return detectors and attacks whose scores mean something and have errors to flag."""
    file = ExamplesFile(
        run_id=run.id,
        path=folder / run.scores["file"],
        sha256=run.scores.get("sha256", ""),
        n=run.n or 0,
    )
    found = []
    for each in run.detections:
        if not each.points:  # of the errors among all images, which have no rate of their own
            continue
        if attack_trust(run, each.attack).withheld or clean_trust(run).withheld:
            what = "means nothing"
        elif all(point.detected is None for point in each.points):
            what = "has no errors to flag"
        else:
            found.append(
                ScoredPair(run=run, detector=each.detector, attack=each.attack, scores=file)
            )
            continue
        material.feedback.note(f"left out: {each.attack} of {run.id}, which {what}")
    return found


def _panel(title: str, pairs: list[ScoredPair]) -> CurvePanel:
    import numpy as np

    curves: list[DrawnCurve] = []
    for each in pairs:
        clean = each.scores.array(f"clean/{each.detector}")
        wrong = each.scores.array(f"{each.attack}/prediction") != each.scores.array("label")
        errors = each.scores.array(f"{each.attack}/{each.detector}")[wrong]
        thresholds = np.unique(np.concatenate([clean, errors]))[::-1]
        flagged = [(clean[:, None] > thresholds), (errors[:, None] > thresholds)]
        x, y = ([0.0, *(100 * rows.mean(0)), 100.0] for rows in flagged)
        model = f"{each.run.subject}{each.run.settings.behind}"
        name = f"{model}: {each.detector} under {each.attack}"
        taken = name in {curve.name for curve in curves}
        curves.append(DrawnCurve(name=f"{name} ({each.run.id})" if taken else name, x=x, y=y))
    return CurvePanel(
        title=title,
        over="clean images flagged (%)",
        shown="errors flagged (%)",
        curves=tuple(curves),
        diagonal=True,
        marks=(1, 5),
    )
