"""The verdicts behind each number of a table add up to it, in evaluations that really ran."""

import json
from dataclasses import replace

import numpy as np
import pytest

from robustbench_cli.cli import main
from robustbench_cli.commands.upgrade_records import comparable
from robustbench_cli.evaluation.journal import write_arrays
from robustbench_cli.report import joint_table
from robustbench_cli.report.example_files import ExampleFiles, ExamplesFile, MissingVerdicts
from robustbench_cli.report.origins import AttackOrigin, CleanOrigin
from robustbench_cli.report.robustness_table import rows
from robustbench_cli.report.statistics import Distance
from robustbench_cli.report.training_minutes import TrainingMinutes
from robustbench_cli.runs import records


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two seeds of a small net: attacks, an attack for the nearest image, a sweep, a certificate,
    the last epoch's weights, and a joint attack on both."""
    folder = tmp_path_factory.mktemp("origins") / "results"
    shared = ["--out", str(folder), "--device", "cpu"]
    for seed in ("0", "1"):
        name = f"net-{seed}"
        train = ["train", "standard", "--dataset", "digits", "--seed", seed, "--name", name]
        train += ["--set", "train.epochs=2", "--set", "train.limit=300", "--set"]
        train += ["train.validation=50", "--set"]
        assert main([*train, "train.select=best", *shared]) == 0
        attack = ["--run", name, "--n", "20", "--eps", "0.1", "--no-checks"]
        attack += ["--attack", "pgd3"]
        usual = [*attack, "--attack", "deepfool", "--certify", "smoothing:n=50", "--sigma", "0.1"]
        assert main(["eval", *usual, *shared]) == 0
        assert main(["eval", *attack, "--checkpoint", "last", *shared]) == 0
        assert main(["eval", *attack, "--sweep", "eps=0,0.05,0.2", *shared]) == 0
    joint = ["joint", "--run", "net-0", "--run", "net-1", "--eps", "0.1", "--n", "20"]
    assert main([*joint, *shared]) == 0
    return folder


def test_every_number_of_the_main_table_has_its_verdicts(results):
    runs = comparable(results)
    (row,) = rows([*runs.values()], keep=lambda run: True, files=ExampleFiles.of_runs(runs))
    cells = [
        cell
        for cell in row.cells.values()
        if cell and not isinstance(cell, Distance | TrainingMinutes)
    ]
    names = {cell.name for cell in cells}
    assert {"clean", "pgd3", "deepfool", "worst", "pgd3 last", "pgd3 diff"} <= names
    assert any("@eps=0.05" in name for name in names)
    assert any(name.startswith("certified") for name in names)
    for cell in cells:
        assert cell.sample.values.shape == (2, 20), cell.name
        assert cell.sample.mean == pytest.approx(cell.mean, abs=1e-6), cell.name


def test_every_number_of_a_joint_attack_has_its_verdicts(results):
    runs = comparable(results)
    (table,) = joint_table.tables([*runs.values()], files=ExampleFiles.of_runs(runs))
    for line in table.lines:
        for cell in line.cells.values():
            assert cell.sample.mean == pytest.approx(cell.mean, abs=1e-6)


@pytest.fixture
def kept(tmp_path):
    """A file of four examples, and how it is read."""
    arrays = {
        "label": np.array([3, 1, 4, 1]),
        "clean/share": np.array([1, 1, 1, 0], np.float32),
        "pgd/share": np.array([1, 0, 0.5, 1], np.float32),
        "near/by": np.array([0, 0, -1, -1], np.int16),
        "near/norm": np.array([0.1, 0.4, np.inf, np.inf], np.float32),
    }
    path = write_arrays(tmp_path / "examples.npz", arrays)
    return ExamplesFile(run_id="e", path=path, sha256=records.sha256(path), n=4)


def test_an_image_counts_before_and_after_the_attack(kept):
    assert CleanOrigin(file=kept, right=3).shares.tolist() == [1, 1, 1, 0]
    found = AttackOrigin(file=kept, right=1.5, label="pgd", radius=None)
    assert found.shares.tolist() == [1, 0, 0.5, 0]


@pytest.mark.parametrize(("radius", "shares"), [(0.05, [1, 1, 1, 0]), (0.1, [0, 1, 1, 0])])
def test_a_nearest_image_counts_within_the_radius(kept, radius, shares):
    found = AttackOrigin(file=kept, right=sum(shares), label="near", radius=radius)
    assert found.shares.tolist() == shares


def test_verdicts_that_do_not_add_up_are_refused(kept):
    for right in (2, 4, float("nan")):
        with pytest.raises(MissingVerdicts, match="does not add up"):
            _ = CleanOrigin(file=kept, right=right).shares


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"path": None}, "is missing"),
        ({"sha256": "0" * 64}, "sha256"),
        ({"n": 5}, "no 5 verdicts"),
    ],
)
def test_a_wrong_file_is_named(kept, change, said):
    with pytest.raises(MissingVerdicts, match=f"'e'.*{said}"):
        replace(kept, **change).array("clean/share")


def test_what_is_no_array_of_numbers_is_damaged(kept, tmp_path):
    with pytest.raises(MissingVerdicts, match="has no 'cw/share'"):
        kept.array("cw/share")
    for content in (b"", b"PK\x03\x04 no archive"):
        path = tmp_path / "other.npz"
        path.write_bytes(content)
        broken = replace(kept, path=path, sha256=records.sha256(path))
        with pytest.raises(MissingVerdicts, match="damaged"):
            broken.array("clean/share")
    path = tmp_path / "objects.npz"
    np.savez(path, **{"clean/share": np.array([{}, {}, {}, {}], dtype=object)})
    with pytest.raises(MissingVerdicts, match="damaged"):
        replace(kept, path=path, sha256=records.sha256(path)).array("clean/share")


def test_a_file_is_read_once(kept, monkeypatch):
    read = []
    monkeypatch.setattr(ExamplesFile, "_read", lambda self, name: read.append(name) or np.ones(4))
    for _ in range(2):
        kept.array("label")
        kept.array("clean/share")
    assert read == ["label", "clean/share"]
    files = ExampleFiles({})
    run = records.Run(id="a", kind="eval", created=records.now(), command=[], config={})
    assert files.of(run) is files.of(run)
    assert json.dumps(run.examples) == "{}"
