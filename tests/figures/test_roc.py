"""ROC curves pass through the points that detect eval prints."""

import numpy as np
import pytest

from robustbench_cli.cli import main
from robustbench_cli.core.registry import Spec
from robustbench_cli.figures import FIGURES, Feedback, Material
from robustbench_cli.runs import folders


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A net trained for a moment, with a detector and its scores under an attack that breaks it."""
    out = tmp_path_factory.mktemp("roc")
    train = ["train", "standard", "--epochs", "2", "--out", str(out), "--name", "net", "--quiet"]
    assert main([*train, "--set", "train.probe=0", "--set", "model.width=6"]) == 0
    run = ["--run", str(out / "net"), "--out", str(out), "--quiet"]
    assert main(["detect", "fit", "knn", "--name", "guard", *run]) == 0
    attacks = ["--attack", "fgsm", "--eps", "0.3", "--n", "60"]
    assert main(["detect", "eval", *run, *attacks]) == 0
    return out


def panels(results, *names):
    material = Material(
        names=names, results=results, numbers=results / "x", feedback=Feedback(note=print)
    )
    return FIGURES.build(Spec("roc")).prepare(material)


def test_a_curve_passes_through_the_points_of_the_record(results):
    paint = panels(results)
    ((panel,),) = paint.args
    (curve,) = panel.curves
    run = next(run for run in folders.every(results) if run.kind == "detect" and run.detections)
    points = [point for each in run.detections for point in each.points]
    places = {(round(x, 6), round(y, 6)) for x, y in zip(curve.x, curve.y, strict=True)}
    assert len(points) == 2
    for point in points:
        assert (round(100 * point.flagged, 6), round(100 * point.detected, 6)) in places
    assert (curve.x[0], curve.y[0], curve.x[-1], curve.y[-1]) == (0, 0, 100, 100)
    assert np.all(np.diff(curve.x) >= 0)
    assert np.all(np.diff(curve.y) >= 0)
    assert [axes.get_xlabel() for axes in paint().axes] == ["clean images flagged (%)"]


def test_without_scores_the_commands_are_named(results, tmp_path):
    with pytest.raises(ValueError, match="no scores of a detector to draw; make them: advbench"):
        panels(tmp_path)
