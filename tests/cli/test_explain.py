"""``advbench explain`` from a trained run to its record, its file and its picture; its mistakes."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from robustbench_cli.cli import main
from robustbench_cli.evaluation.journal import read_arrays
from robustbench_cli.runs import records

pytest.importorskip("captum")

SMALL = ["--set", "train.limit=400", "--set", "train.probe=20", "--set", "model.width=4"]
METHODS = ["gradient", "perceptual-ball:gamma=10,iterations=12", "rise:masks=30"]
ROWS = [*METHODS, "uniform", "random"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A net that was trained for three epochs."""
    out = tmp_path_factory.mktemp("explain") / "results"
    train = ["train", "standard", "--epochs", "3", "--name", "net", "--quiet", *SMALL]
    assert main([*train, "--out", str(out)]) == 0
    return out


def explain(results, *words):
    return main(["explain", *words, "--run", "net", "--quiet", "--out", str(results)])


@pytest.fixture(scope="module")
def explained(results):
    assert explain(results, *METHODS, "--n", "8", "--pictures", "3", "--name", "seen") == 0
    return results / "seen"


def measure(folder, of, name):
    (found,) = [m for m in records.read(folder).measures if (m.of, m.name) == (of, name)]
    return found


def test_the_record_holds_every_measure_and_all_settings(explained):
    run = records.read(explained)
    assert (run.kind, run.status, run.parent, run.n) == ("explain", "ok", "net", 8)
    assert list(run.config["methods"]) == METHODS
    assert run.config["methods"][METHODS[1]]["gamma"] == 10
    settings = {key: run.config[key] for key in ("target", "steps", "sanity", "seed", "n")}
    assert settings == {"target": "predicted", "steps": 32, "sanity": "all", "seed": 0, "n": 8}
    assert "attack" not in run.config
    assert list(dict.fromkeys(m.of for m in run.measures)) == ROWS
    for of in ROWS:
        energy = measure(explained, of, "energy in mask")
        assert (energy.unit, energy.better) == ("%", "higher")
        assert 0 < energy.value < 1
    assert measure(explained, "uniform", "insertion AUC").value is None
    assert "even" in measure(explained, "uniform", "insertion AUC").note
    assert measure(explained, METHODS[2], "deletion AUC").better == "lower"
    for of in METHODS:
        assert -1 <= measure(explained, of, "sanity: rank correlation").value <= 1
    assert measure(explained, METHODS[1], "change L2").value > 0
    assert measure(explained, METHODS[1], "feature distance").value > 0
    assert "leave [0, 1]" in measure(explained, METHODS[1], "outside [0, 1]").note
    assert any("may be luck" in note for note in run.notes)


def test_an_even_map_scores_the_object_s_share_of_the_pixels(explained):
    arrays = read_arrays(explained / "explanations.npz")
    share = measure(explained, "uniform", "energy in mask").value
    assert share == pytest.approx(measure(explained, "uniform", "pointing game").value)
    assert 0.3 < share < 0.7
    assert len(arrays["image"]) == 3


def test_the_file_holds_maps_curves_and_counterfactuals(explained):
    run = records.read(explained)
    path = explained / run.explanations["file"]
    assert records.sha256(path) == run.explanations["sha256"]
    arrays = read_arrays(path)
    for of in METHODS:
        assert arrays[f"{of}/map"].shape == (8, 8, 8)
        assert (arrays[f"{of}/map"] >= 0).all()
        assert arrays[f"{of}/deletion"].shape == (8, 33)
    assert arrays[f"{METHODS[1]}/counterfactual"].shape == (8, 1, 8, 8)
    assert f"{METHODS[0]}/counterfactual" not in arrays
    areas = arrays[f"{METHODS[0]}/deletion"].astype(float)
    mean = ((areas[:, 1:] + areas[:, :-1]) / 2).mean(1).mean()
    assert measure(explained, METHODS[0], "deletion AUC").value == pytest.approx(mean, rel=1e-5)


def test_the_picture_has_a_row_per_image_and_columns_per_method(explained):
    with Image.open(explained / "explanations.png") as picture:
        width, height = picture.size
    assert width / height == pytest.approx(8 / 3.4, rel=0.1)


def test_the_same_command_gives_the_same_numbers_in_any_batch(results, explained):
    more = ["--n", "8", "--pictures", "0", "--batch-size", "3", "--name", "again"]
    assert explain(results, *METHODS, *more) == 0
    one, other = (read_arrays(results / n / "explanations.npz") for n in ("seen", "again"))
    for of in METHODS:
        np.testing.assert_allclose(other[f"{of}/map"], one[f"{of}/map"], rtol=1e-4, atol=1e-6)
    assert not (results / "again" / "explanations.png").exists()
    for mine in records.read(results / "again").measures:
        known = measure(explained, mine.of, mine.name)
        assert mine.value == (None if known.value is None else pytest.approx(known.value, rel=1e-3))


def test_the_gradient_is_there_to_compare_with(results, capsys):
    few = ["--n", "3", "--sanity", "none", "--pictures", "0"]
    assert explain(results, "occlusion", *few, "--name", "compared") == 0
    run = records.read(results / "compared")
    assert list(dict.fromkeys(m.of for m in run.measures)) == [
        *("occlusion", "gradient", "uniform", "random")
    ]
    assert not [m for m in run.measures if m.name.startswith("sanity")]
    out = capsys.readouterr().out
    assert "energy in mask" in out
    assert str(results / "compared") in out


def test_boxes_and_masks_come_from_files(results, tmp_path):
    masks = np.zeros((500, 8, 8), bool)
    masks[:, 2:6, 2:6] = True
    np.savez(tmp_path / "masks.npz", mask=masks)
    (tmp_path / "boxes.csv").write_text("".join(f"{i},2,2,6,6\n" for i in range(2)))
    files = ["--masks", str(tmp_path / "masks.npz"), "--boxes", str(tmp_path / "boxes.csv")]
    few = ["--n", "4", "--sanity", "none", "--pictures", "0"]
    assert explain(results, "gradient", *files, *few, "--name", "filed") == 0
    assert measure(results / "filed", "uniform", "energy in mask").value == pytest.approx(1 / 4)
    box = measure(results / "filed", "uniform", "box IoU")
    assert (box.value, box.n) == (pytest.approx(1 / 4), 2)
    assert measure(results / "filed", "uniform", "localised").value == 0
    assert set(records.read(results / "filed").config["objects"]) == {"above", "masks", "boxes"}


def test_a_cascade_has_a_number_for_each_layer(results):
    few = ["--n", "3", "--sanity", "cascade", "--pictures", "0"]
    assert explain(results, "gradient", *few, "--name", "cascade") == 0
    names = [m.name for m in records.read(results / "cascade").measures if m.of == "gradient"]
    assert names[4] == "sanity: down to head"
    assert names[-1] == "sanity: rank correlation"
    assert "sanity: down to body.conv2" in names


def test_a_class_may_be_named(results):
    few = ["--n", "3", "--sanity", "none", "--pictures", "0"]
    for name, target in (("three", "3"), ("true", "label")):
        assert explain(results, "gradient", *few, "--target", target, "--name", name) == 0
    three, true = (read_arrays(results / n / "explanations.npz") for n in ("three", "true"))
    assert (three["target"] == 3).all()
    assert (true["target"] == true["label"]).all()


MODEL = """
import torch
from torch import nn


class Alike(nn.Module):
    def forward(self, x):
        return 0 * x.flatten(1).sum(1, keepdim=True) + torch.tensor([[0.0, 1.0] + 8 * [0.0]])


make = Alike
"""


def test_a_model_that_answers_everything_alike_gets_no_numbers(tmp_path):
    (tmp_path / "net.py").write_text(MODEL)
    of = ["--model", f"{tmp_path / 'net.py'}:make", "--dataset", "digits", "--n", "5"]
    where = ["--out", str(tmp_path), "--name", "alike", "--pictures", "0", "--quiet"]
    assert main(["explain", "gradient", *of, *where]) == 0
    run = records.read(tmp_path / "alike")
    assert measure(tmp_path / "alike", "gradient", "energy in mask").value is None
    empty = measure(tmp_path / "alike", "gradient", "empty maps")
    assert empty.value == 1
    assert "says nothing" in empty.note
    assert any("all 5 images the class" in note for note in run.notes)


def test_json_holds_the_measures(results, capsys):
    few = ["--n", "2", "--sanity", "none", "--pictures", "0", "--json"]
    assert explain(results, "gradient", *few) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kind"] == "explain"
    assert found["measures"][0]["of"] == "gradient"
    assert {"name", "value", "n", "better", "unit", "note"} < set(found["measures"][0])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gradiant"], "did you mean 'gradient'"),
        (["gradient", "gradient"], "given twice"),
        (["perceptual-ball:gamma=-1"], "greater than or equal to 0"),
        (["grad-cam:layer=body.conv9"], "no layer 'body.conv9'"),
        (["perceptual-ball:taps=x*"], "no layer 'x*'"),
        (["gradient", "--target", "13"], "no such class"),
        (["gradient", "--sanity", "some"], "--sanity some"),
        (["gradient", "--n", "9999"], "has 500 examples"),
        (["gradient", "--masks", "nowhere.npz"], "no .npz file"),
        (["gradient", "--boxes", "nowhere.csv"], "cannot be read"),
    ],
)
def test_a_mistake_costs_one_line_and_leaves_no_folder(words, said, results, capsys):
    before = sorted(results.iterdir())
    assert explain(results, *words) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert sorted(results.iterdir()) == before


def test_without_captum_the_line_says_what_to_install(results, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "captum", None)
    assert explain(results, "gradient") == 2
    assert "pip install captum" in capsys.readouterr().err
    few = ["--n", "2", "--sanity", "none", "--pictures", "0", "--name", "alone"]
    assert explain(results, "perceptual-ball:iterations=3", *few) == 0
    assert any("pip install captum" in note for note in records.read(results / "alone").notes)
