"""``advbench report --paper robust-dml``: measures of real retrievals beside published ones."""

import csv
import io
import json
import re

import numpy as np
import pytest

from robustbench_cli.cli import main
from robustbench_cli.runs import records
from robustbench_cli.runs.retrieval_rows import row_attacks

TABLE = ["report", "--paper", "robust-dml", "--table", "robrank"]
PRESET = "robust-dml-robrank-none-fashion-mnist"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A small net that was trained on what is called Fashion-MNIST, and a retrieval of it."""
    place = tmp_path_factory.mktemp("paper")
    draw = np.random.default_rng(0)
    looks = draw.integers(0, 255, (10, 28, 28))
    arrays = {}
    for end, count in (("", 60), ("_test", 40)):
        arrays[f"y{end}"] = np.arange(count) % 10
        blurred = looks[arrays[f"y{end}"]] + draw.integers(-60, 60, (count, 28, 28))
        arrays[f"x{end}"] = blurred.clip(0, 255).astype(np.uint8)
    np.savez(place / "fashion-mnist.npz", **arrays)
    out = ["--out", str(place / "results"), "--quiet"]
    words = ["--preset", PRESET, "--dataset", f"npz:{place / 'fashion-mnist.npz'}"]
    words += ["--epochs", "1", "--batch-size", "20", "--set", "model.hidden=16"]
    assert main(["train", "none", *words, "--name", "plain", *out]) == 0
    attacks = ["--attack", "es:steps=3,step=1/2", "--attack", "qa+:steps=3,step=1/2"]
    found = ["retrieve", "--run", "plain", *attacks, "--n", "20", "--name", "found", *out]
    assert main(found) == 0
    return place / "results"


@pytest.fixture
def reported(results, capsys):
    def run(format_, folder=results):
        assert main([*TABLE, "--results", str(folder), "--format", format_]) == 0
        return capsys.readouterr().out

    return run


def recorded(results):
    run = records.read(results / "found")
    assert {each.of for each in run.measures} <= {*row_attacks(run)}
    return {(each.of.split(":")[0], each.name): each.value for each in run.measures}


def test_every_measure_stands_in_its_row_in_the_paper_s_unit(results, reported):
    values = recorded(results)
    found = {
        each["metric"]: each
        for each in json.loads(reported("json"))
        if each["method"] == "none / ptripletN" and each["runs"]
    }
    assert {name: (each["ours"], each["unit"]) for name, each in found.items()} == {
        "R@1": (values["clean", "R@1"], "share"),
        "R@2": (values["clean", "R@2"], "share"),
        "mAP": (values["clean", "mAP"], "share"),
        "mAP@R": (values["clean", "mAP@10"], "share"),
        "QA+": (100 * values["qa+", "QA+"], "%"),
        "ES:D": (values["es", "ES:D"], ""),
        "ES:R": (100 * values["es", "ES:R"], "%"),
    }
    net = ["model hidden 16 (1024)"]
    told = ["data npz:fashion-mnist.npz (fashion-mnist)", "epochs 1 (16)", *net]
    assert sorted(found["R@1"]["differs"]) == sorted([*told, "queries 20 (40)"])
    assert sorted(found["ES:D"]["differs"]) == sorted(
        [*told, "steps 3 (32)", "step/eps 1/2 (3/77)", "queries 20 (40)"]
    )
    assert (found["ES:D"]["better"], found["ES:R"]["better"]) == ("lower", "higher")
    for each in found.values():
        assert each["difference"] == pytest.approx(each["ours"] - each["value"], abs=1e-5)


def test_a_page_shows_numbers_with_the_paper_s_digits_and_what_they_are(results, reported):
    values, text = recorded(results), reported("terminal")
    rows = [re.split(r" {2,}", line.strip()) for line in text.splitlines()]
    (recall,) = (row for row in rows if "R@1" in row and "A" in row)
    assert recall[3] == f"{values['clean', 'R@1']:.4f}"
    (shift,) = (row for row in rows if row[0] == "ES:D" and "A" in row)
    assert shift[2] == f"{values['es', 'ES:D']:.4f}"
    (left,) = (row for row in rows if row[0] == "ES:R" and "A" in row)
    assert left[2] == f"{100 * values['es', 'ES:R']:.2f}"
    assert "R@1, R@2, mAP, mAP@R as shares of 1; TMA, ES:D as they are" in text
    assert "ES:D lower" in text
    assert "accuracy in %" not in text
    assert "checked its numbers" not in text
    for format_ in ("md", "html", "latex"):
        assert f"{values['es', 'ES:D']:.4f}" in reported(format_)
    lines = csv.DictReader(io.StringIO(reported("csv")))
    assert sum(bool(line["ours"]) for line in lines) == 7


def test_what_is_to_be_known_of_a_measure_is_marked_wherever_it_is_shown(
    results, reported, tmp_path
):
    for name in ("plain", "found"):
        (tmp_path / name).mkdir()
        record = json.loads((results / name / "run.json").read_text())
        for measure in record["measures"]:
            measure["note"] = "embeddings have collapsed"
            lost = measure["name"] == "ES:D"
            measure["value"] = None if lost else measure["value"]
        (tmp_path / name / "run.json").write_text(json.dumps(record))
    values, text = recorded(results), reported("terminal", tmp_path)
    assert re.search(rf"R@1 +0\.876 +{values['clean', 'R@1']:.4f} \* +\S+ \* +A ", text)
    assert re.search(r"ES:D +1\.604 +withheld +A ", text)
    assert "* plain (R@1, R@2, mAP, mAP@R, QA+, ES:R): embeddings have collapsed" in text
    assert "withheld plain (ES:D): embeddings have collapsed" in text
    (shift,) = (
        each for each in json.loads(reported("json", tmp_path))
        if each["metric"] == "ES:D" and each["runs"]
    )  # fmt: skip
    assert (shift["ours"], shift["ours_trust"], shift["ours_notes"]) == (
        None,
        "withheld",
        ["embeddings have collapsed"],
    )
