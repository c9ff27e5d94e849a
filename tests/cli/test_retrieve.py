"""``advbench train --task metric`` and ``advbench retrieve``, from training to the table."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from robustbench_cli.cli import main
from robustbench_cli.commands import train_metric
from robustbench_cli.data.digits import Digits
from robustbench_cli.metric_learning._recall import COLLAPSED
from robustbench_cli.runs import records
from robustbench_cli.runs.retrieval_rows import row_attacks
from robustbench_cli.training.metric_trainer import MetricTrainer, collapsed

SMALL = ["--set", "train.limit=300", "--set", "train.probe=60", "--set", "model.width=4"]
SMALL += ["--set", "embedding.dim=16", "--epochs", "2", "--batch-size", "60"]
FEW = ["--set", "defense.est.steps=2", "--set", "defense.est.step=1/2"]


def run(*words):
    return main([*words, "--quiet"])


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two nets, and a retrieval under attack of the first."""
    out = tmp_path_factory.mktemp("metric") / "results"
    place = ["--out", str(out)]
    assert run("train", "--task", "metric", "none", *SMALL, "--name", "plain", *place) == 0
    assert run("train", "--task", "metric", "est", *SMALL, *FEW, "--name", "est", *place) == 0
    attacks = ["--attack", "untargeted:steps=6,step=1/4", "--eps", "0.05", "--eps", "0.15"]
    found = ["retrieve", "--run", "plain", *attacks, "--n", "100", "--name", "found", *place]
    assert run(*found) == 0
    return out


def measured(folder):
    return {(each.of, each.name): each for each in records.read(folder).measures}


def test_a_training_leaves_tensors_a_history_and_its_task(results):
    run = records.read(results / "est")
    assert (run.kind, run.status, run.subject) == ("train", "ok", "metric est:steps=2,step=0.5")
    assert run.config["task"] == "metric"
    assert run.config["embedding"]["dim"] == 16
    assert [row["epoch"] for row in run.history] == [1, 2]
    for row in run.history:
        assert 0 <= row["recall_at_1"] <= 1
        assert row["mean_distance"] > 0
        assert row["loss"] > 0
    assert sorted(each.name for each in (results / "est").glob("[!.]*")) == [
        "model.safetensors",
        "run.json",
    ]


def test_a_retrieval_measures_clean_images_and_every_attack_at_every_radius(results):
    run, found = records.read(results / "found"), measured(results / "found")
    assert (run.kind, run.status, run.parent, run.n) == ("retrieve", "ok", "plain", 100)
    assert run.weights == records.read(results / "plain").checkpoint.sha256
    rows = list(dict.fromkeys(of for of, _ in found))
    label = "untargeted:steps=6,step=0.25"
    assert rows == ["clean", f"{label} eps=0.05", f"{label} eps=0.15"]
    recalls = [found[of, "R@1"].value for of in rows]
    assert recalls[0] > 0.6
    assert recalls == sorted(recalls, reverse=True)
    assert recalls[2] < recalls[0]
    for (of, name), each in found.items():
        assert each.n in (100, 500), (of, name)
        assert each.value is not None
    for of in rows:
        at = [found[of, f"R@{k}"].value for k in (2, 4, 8)]
        assert at == sorted(at)


def test_numbers_do_not_depend_on_the_batch(results, tmp_path):
    words = ["retrieve", "--run", "plain", "--attack", "ca+:steps=4,step=1/2", "--attack", "tma"]
    words += ["--eps", "0.1", "--n", "30", "--out", str(results)]
    for size in ("7", "30"):
        assert run(*words, "--batch-size", size, "--name", f"by-{size}") == 0
    one, other = (measured(results / f"by-{size}") for size in ("7", "30"))
    assert one.keys() == other.keys()
    for key, each in one.items():
        # Beside float rounding, whose signs may move single pixels.
        assert each.value == pytest.approx(other[key].value, abs=2e-3)


def test_the_score_of_all_attacks(results):
    words = ["retrieve", "--run", "plain", "--attack", "ers", "--steps", "4", "--eps", "0.1"]
    few = ["--n", "10", "--out", str(results), "--name", "score"]
    # Four steps of 3/77 do not go far enough, and that is said.
    assert run(*words, *few) == 2
    assert not (results / "score").exists()
    steps = ["--attack", "ers", "--eps", "0.1"]
    assert run("retrieve", "--run", "plain", *steps, *few) == 0
    found = measured(results / "score")
    # A record tells which attack each of its rows is about.
    about = row_attacks(records.read(results / "score"))
    assert {of for of, _ in found} == {*about}
    assert about["all eps=0.1"].params["name"] == "ers"
    assert 0 < found["all eps=0.1", "ERS"].value < 1
    under = [each.value for (of, name), each in found.items() if name == "R@1" and of != "all"]
    assert found["all eps=0.1", "R@1"].value <= min(under)
    for name in ("CA+", "CA-", "QA+", "QA-", "TMA", "ES:D", "ES:R", "LTM", "GTM", "GTT"):
        assert any(each == name for _, each in found)


def test_a_report_joins_retrievals(results, capsys):
    assert main(["report", "--kind", "retrieve", "--results", str(results)]) == 0
    said = capsys.readouterr().out
    assert "metric none" in said
    assert "untargeted" in said


@pytest.mark.parametrize(
    "words",
    [
        ["eval", "--attack", "fgsm", "--run", "plain"],
        ["attack", "fgsm", "--run", "plain"],
        ["audit", "plain"],
        ["train", "pgd-at", "--init", "plain"],
        ["detect", "fit", "softmax", "--run", "plain"],
    ],
)
def test_other_commands_refuse_embeddings_in_one_line(words, results, capsys):
    assert main([*words, "--out", str(results)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "metric-learning run" in line
    assert "advbench retrieve --run plain" in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "--task", "metric"], "name a metric defense"),
        (["train", "--task", "metric", "trades"], "unknown metric-defense 'trades'"),
        (["train", "--task", "metrics", "est"], "unknown task 'metrics'; did you mean 'metric'?"),
        (["train", "--task", "metric", "est+awp"], "one defense, and no modifiers"),
        (["train", "--task", "metric", "est", "--mask", "border"], "without a mask"),
        (["train", "--task", "metric", "est", "--batch-size", "5"], "multiple of"),
        (["train", "--task", "metric", "est", "--set", "train.select=epoch"], "select_epoch"),
        (["train", "--task", "metric", "est", "--precision", "bf16"], "runs in float32"),
        (["train", "--task", "metric", "est", "--set", "preset=x"], "is named by --preset"),
        (["train", "--task", "metric", "none", "--extra-data", "digits"], "no --extra-data"),
        (["train", "trades", "--split-classes"], "go with --task metric"),
        (["train", "trades", "--set", "task=metric"], "--task metric, not by --set"),
        (["retrieve", "--run", "plain", "--eps", "0.1"], "--eps goes with an --attack"),
        (["retrieve", "--run", "plain", "--attack", "es", "--eps", "8"], "eps"),
        (["retrieve", "--run", "plain", "--attack", "pgd"], "unknown retrieval-attack 'pgd'"),
        (["retrieve", "--run", "plain", "--attack", "es", "--norm", "L2"], "say how far"),
        (["retrieve", "--run", "plain", "--attack", "es", "--norm", "L0", "--eps", "3"], "ball"),
    ],
)
def test_mistakes_cost_one_line_and_leave_no_folder(words, said, results, capsys):
    before = sorted(results.iterdir())
    assert main([*words, "--out", str(results)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line
    assert sorted(results.iterdir()) == before


def test_a_run_of_classes_has_nothing_to_retrieve(tmp_path, capsys):
    few = ["--epochs", "1", "--set", "train.limit=64", "--set", "model.width=4"]
    assert run("train", "standard", *few, "--name", "net", "--out", str(tmp_path)) == 0
    capsys.readouterr()
    assert main(["retrieve", "--run", "net", "--out", str(tmp_path)]) == 2
    assert "is no metric-learning run" in capsys.readouterr().err


def test_a_missing_package_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pytorch_metric_learning.losses", None)
    assert main(["train", "--task", "metric", "est", "--out", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "needs pytorch-metric-learning: pip install -e '.[metric]'" in line
    assert not list(tmp_path.iterdir())


def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path, monkeypatch, capsys):
    gradual = ["hm:target=gradual,steps=2,step=1/2", *SMALL, "--seed", "3"]
    whole = ["train", "--task", "metric", *gradual, "--out", str(tmp_path)]
    assert run(*whole, "--name", "whole") == 0
    real = MetricTrainer.epoch

    def stopped(self, epoch, *rest):
        if epoch == 1:
            raise KeyboardInterrupt
        return real(self, epoch, *rest)

    monkeypatch.setattr(MetricTrainer, "epoch", stopped)
    assert run(*whole, "--name", "parts") == 130
    assert f"--resume parts --out {tmp_path}" in capsys.readouterr().err
    assert records.read(tmp_path / "parts").status == "interrupted"
    monkeypatch.setattr(MetricTrainer, "epoch", real)
    assert run("train", "--resume", "parts", "--out", str(tmp_path)) == 0
    one, other = (records.read(tmp_path / name) for name in ("whole", "parts"))
    assert one.checkpoint.sha256 == other.checkpoint.sha256
    assert [row["loss"] for row in one.history] == [row["loss"] for row in other.history]
    assert len(other.resumed) == 1
    assert not (tmp_path / "parts" / "state.safetensors").exists()
    assert run("train", "--resume", "parts", "--out", str(tmp_path)) == 2


def test_a_preset_asks_for_its_task_and_runs_at_smoke_scale(tmp_path):
    words = ["train", "--preset", "robust-dml-robrank-act-mnist", "--smoke", "--name", "s"]
    assert run(*words, "--out", str(tmp_path), "--set", "defense.act.steps=1") == 2
    step = ["--set", "defense.act.steps=2", "--set", "defense.act.step=1/2"]
    assert run(*words, "--out", str(tmp_path), *step) == 0
    found = records.read(tmp_path / "s")
    assert (found.config["task"], found.config["embedding"]["dim"]) == ("metric", 512)
    assert found.settings.data_name == "digits"


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    """Eight classes of ten pictures each, in folders without a test split, as CUB has them."""
    top = tmp_path_factory.mktemp("birds")
    digits = Digits().load("train", Path())
    for label in range(8):
        folder = top / f"{label:03}.bird"
        folder.mkdir()
        for row in (digits.y == label).nonzero()[:10, 0].tolist():
            Image.fromarray(digits.x[row, 0].numpy()).save(folder / f"{row}.png")
    return top


def test_zero_shot_trains_on_some_classes_and_retrieves_among_the_others(birds, tmp_path):
    data = ["--dataset", f"folder:{birds}", "--split-classes", "--model", "digits-cnn"]
    words = ["train", "--task", "metric", "none", *data, "--epochs", "1", "--batch-size", "16"]
    place = ["--out", str(tmp_path)]
    assert run(*words, "--set", "embedding.train_classes=5", "--name", "birds", *place) == 0
    found = records.read(tmp_path / "birds")
    assert (found.dataset["train"], found.dataset["test"]) == (50, 30)
    assert run("retrieve", "--run", "birds", "--name", "r", *place) == 0
    assert measured(tmp_path / "r")["clean", "R@1"].n == 30
    assert run(*words, "--set", "embedding.train_classes=7", *place) == 2


def test_other_test_images_are_noticed(birds, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(birds, copy)
    data = ["--dataset", f"folder:{copy}", "--split-classes", "--model", "digits-cnn"]
    words = ["train", "--task", "metric", "none", *data, "--epochs", "1", "--batch-size", "16"]
    assert run(*words, "--name", "net", "--out", str(tmp_path / "out")) == 0
    next((copy / "007.bird").glob("*.png")).unlink()
    capsys.readouterr()
    assert main(["retrieve", "--run", "net", "--out", str(tmp_path / "out")]) == 2
    assert "fingerprints differ" in capsys.readouterr().err


def test_collapse_is_said_and_what_it_fakes_is_withheld(results, tmp_path, capsys):
    """Where embeddings lie in one place attacks cannot move them, which proves nothing."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "flat"
    shutil.copytree(results / "plain", folder)
    weights = load_file(folder / "model.safetensors")
    weights["net.head.weight"] *= 1e-3
    weights["net.head.bias"] += 1
    save_file(weights, folder / "model.safetensors")
    told = json.loads((folder / "run.json").read_text())
    told["id"] = "flat"
    told["checkpoint"]["sha256"] = records.sha256(folder / "model.safetensors")
    (folder / "run.json").write_text(json.dumps(told))
    words = ["retrieve", "--run", "flat", "--attack", "es", "--eps", "0.1", "--n", "20"]
    assert main([*words, "--name", "r", "--out", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "warning: embeddings have collapsed" in err
    found = measured(tmp_path / "r")
    assert found["clean", "mean distance"].value < COLLAPSED
    assert found["es eps=0.1", "ES:D"].value is None
    assert "collapsed" in found["es eps=0.1", "ES:D"].note
    assert "collapsed" in found["clean", "R@1"].note
    assert found["clean", "R@1"].value is not None
    assert "collapsed" in records.read(tmp_path / "r").notes[0]
    assert "n/a" in out


def test_a_training_says_that_it_collapsed():
    assert not collapsed({"epoch": 3, "mean_distance": 0.06})
    assert not collapsed({"epoch": 3, "mean_distance": None})
    assert "collapsed by epoch 3" in collapsed({"epoch": 3, "mean_distance": 0.04})


def test_a_limited_run_has_as_many_images_of_each_class():
    split = train_metric._spread(Digits().load("train", Path()), 200)
    assert torch.bincount(split.y).tolist() == [20] * 10
    assert len(split) == 200
