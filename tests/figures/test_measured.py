"""Figures that measure a model: from a trained run to numbers and pictures."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from robustbench_cli.cli import main
from robustbench_cli.commands.load_model import restore
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.data import DATASETS
from robustbench_cli.figures._landscape_data import adversarial_loss
from robustbench_cli.runs import records

SMALL = ["--set", "train.limit=150", "--set", "train.probe=20", "--set", "model.width=4"]
SURFACE = "surface:points=5,image=3"
LANDSCAPE = "landscape:points=3,n=8,split=test"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Return two runs of an epoch, and one whose record says another radius."""
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("trained")
    for seed, name in enumerate(("one", "two")):
        args = ["--seed", str(seed), "--eps", "0.1", "--out", str(folder), "--name", name]
        assert main(["train", "standard", "--epochs", "1", "--quiet", *args, *SMALL]) == 0
    shutil.copytree(folder / "two", folder / "far")
    run = records.read(folder / "far")
    threat = {"threat": {"norm": "Linf", "eps": 0.3}}
    records.write(replace(run, id="far", config=run.config | threat), folder / "far")
    return folder


@pytest.fixture
def plot(results, tmp_path, capsys):
    """Run the command; return the exit code and its output."""

    def run(*args, out="a.png"):
        capsys.readouterr()
        code = main(["plot", *args, "--results", str(results), "--out", str(tmp_path / out)])
        return code, capsys.readouterr().err

    return run


@pytest.fixture
def numbers(plot, tmp_path):
    """Run the command; return the numbers beside the picture."""

    def run(*args):
        assert plot(*args) == (0, "")
        return json.loads((tmp_path / "a.json").read_text())

    return run


def model_of(results, name):
    folder = results / name
    return restore(records.read(folder), folder).eval()


@pytest.mark.parametrize("kind", [SURFACE, LANDSCAPE, f"{LANDSCAPE},directions=2"])
def test_pictures_and_numbers_are_written_together(plot, tmp_path, kind):
    for out, start in (("a.png", b"\x89PNG"), ("a.svg", b"<?xml")):
        assert plot(kind, "one", "two", out=out) == (0, "")
        assert (tmp_path / out).read_bytes().startswith(start)
    found = json.loads((tmp_path / "a.json").read_text())
    assert [run["run"] for run in found["runs"]] == ["one", "two"]
    assert (found["dataset"], found["norm"], found["eps"]) == ("digits", "Linf", 0.1)
    assert {file.name for file in tmp_path.iterdir()} == {"a.png", "a.svg", "a.json"}


def test_a_surface_is_of_the_example_that_was_asked_for(numbers, results):
    (found,) = numbers(SURFACE, "one")["runs"]
    test = DATASETS.build(Spec("digits")).load("test", None)
    x, y = test.images(slice(3, 4)), test.y[3:4]
    with torch.no_grad():
        here = float(F.cross_entropy(model_of(results, "one")(x), y))
    assert found["loss"][2][2] == pytest.approx(here, rel=1e-5)
    assert found["offsets"] == pytest.approx([-0.2, -0.1, 0, 0.1, 0.2])
    assert found["class"] == test.classes[int(y)]


def test_a_landscape_has_the_loss_of_each_run_in_the_middle(numbers, results):
    test = DATASETS.build(Spec("digits")).load("test", None).only(slice(8))
    for run in numbers(LANDSCAPE, "one", "two")["runs"]:
        assert run["alpha"] == [-1, 0, 1]
        model = model_of(results, run["run"])
        own = adversarial_loss(model, test, Threat(eps=0.1), 0)
        assert run["loss"][0][1] == pytest.approx(own, rel=1e-5)


def test_what_was_measured_is_drawn_again_without_measuring(numbers, tmp_path):
    before = numbers(LANDSCAPE, "one")
    before["runs"][0]["loss"] = marked = [[7.0, 7.0, 7.0]]
    (tmp_path / "a.json").write_text(json.dumps(before))
    after = numbers(LANDSCAPE, "one", "two")["runs"]
    assert after[0]["loss"] == marked  # as it was found
    assert [run["run"] for run in after] == ["one", "two"]
    (other,) = numbers(f"{LANDSCAPE},seed=1", "one")["runs"]
    assert other["loss"] != marked  # other settings, other numbers


@pytest.mark.parametrize("content", ["{}", "[1, 2]", "not JSON"])
def test_no_file_of_the_user_s_is_lost(plot, tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    code, said = plot(SURFACE, "one")
    assert code == 2
    assert "holds something else: choose another --out" in said
    assert (tmp_path / "a.json").read_text() == content


def test_runs_that_do_not_compare_are_refused(plot, numbers, tmp_path):
    code, said = plot(SURFACE, "one", "far")
    assert code == 2
    assert "'one' (Linf 0.1) and 'far' (Linf 0.3) were trained for different threats" in said
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())
    assert numbers(f"{SURFACE},eps=0.2", "one", "far")["eps"] == 0.2


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("surface:image=500", "image=500: the test split has 500 images"),
        ("landscape:n=501,split=test", "n=501: the test split has 500 examples"),
        ("surface:eps=8", "did you mean '8/255'"),
        ("surface:imgae=1", "no parameter 'imgae'; did you mean 'image'"),
        ("landscape:directions=0", "greater than or equal to 1"),
    ],
)
def test_mistakes_cost_one_line(plot, tmp_path, kind, message):
    code, said = plot(kind, "one")
    assert code == 2
    assert message in said
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_run_without_weights_cannot_be_measured(plot, results, tmp_path):
    run = records.read(results / "one")
    (tmp_path / "other").mkdir()
    records.write(replace(run, id="other", checkpoint=None), tmp_path / "other")
    code, said = plot(SURFACE, str(tmp_path / "other"))
    assert code == 2
    assert "has kept no weights yet" in said
