"""Certified curves are the counts that a report shows, at every radius."""

import shutil

import numpy as np
import pytest

from robustbench_cli.cli import main
from robustbench_cli.core.registry import Spec
from robustbench_cli.figures import FIGURES, Feedback, Material
from robustbench_cli.runs import folders


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A net trained for a moment, with a certificate at 30 images and an evaluation without one."""
    out = tmp_path_factory.mktemp("curves")
    train = ["train", "smoothing", "--epochs", "2", "--out", str(out), "--name", "net", "--quiet"]
    assert main([*train, "--set", "train.probe=0", "--set", "model.width=6"]) == 0
    evaluate = ["eval", "--run", str(out / "net"), "--n", "30", "--out", str(out), "--quiet"]
    proven = ["--certify", "smoothing:n=300,n0=20", "--norm", "L2", "--eps", "0.5"]
    assert main([*evaluate, *proven]) == 0
    assert main([*evaluate, "--attack", "fgsm"]) == 0
    return out


def painted(results, *names):
    notes = []
    material = Material(
        names=names, results=results, numbers=results / "x", feedback=Feedback(note=notes.append)
    )
    return FIGURES.build(Spec("certified-curve")).prepare(material), notes


def at(curve, radius):
    """The height of a curve at a radius, as a step function that holds at its drops."""
    return max(y for x, y in zip(curve.x, curve.y, strict=True) if x >= radius)


def test_a_curve_has_the_certified_accuracy_of_every_radius(results):
    paint, notes = painted(results)
    ((panel,),) = paint.args
    (curve,) = panel.curves
    assert (panel.title, panel.marks, notes) == ("digits, n 30", (0.5,), [])
    run = next(run for run in folders.every(results) if run.certificates)
    (proof,) = run.certificates.values()
    for within in proof.within:
        reached = at(curve, within.radius) if within.radius <= max(curve.x) else 0
        assert reached == pytest.approx(100 * within.accuracy), within
    assert curve.y[-1] == 0
    assert np.all(np.diff(curve.y) <= 0)
    page = paint()
    assert [axes.get_ylabel() for axes in page.axes] == ["certified accuracy (%)"]


def test_without_a_certificate_the_command_that_makes_one_is_named(results, tmp_path):
    attacked = next(run for run in folders.every(results) if run.kind == "eval" and run.attacks)
    with pytest.raises(ValueError, match=f"of {attacked.id} with a certificate.* --certify"):
        painted(results, str(results / attacked.id))


def test_a_missing_file_is_named(results):
    run = next(run for run in folders.every(results) if run.certificates)
    file = results / run.id / "examples.npz"
    aside = file.rename(file.with_suffix(".aside"))
    try:
        with pytest.raises(ValueError, match=r"examples\.npz of .* is missing"):
            painted(results)
    finally:
        aside.rename(file)


def test_a_damaged_record_of_another_run_is_left_out_and_named(results, tmp_path):
    broken = tmp_path / "all"
    shutil.copytree(results, broken)
    (broken / "other").mkdir()
    (broken / "other" / "run.json").write_text("{")
    paint, notes = painted(broken)
    assert len(paint.args[0]) == 1
    assert all("left out" in note for note in notes)
    assert notes
