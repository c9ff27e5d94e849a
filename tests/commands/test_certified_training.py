"""Certified training as a user types it: what it proves, how it resumes, and what it refuses."""

import pytest

from robustbench_cli.cli import main
from robustbench_cli.commands.components import component_table, defense_tables
from robustbench_cli.commands.train import resume_training, run_training
from robustbench_cli.commands.train_config import resolve_train_config
from robustbench_cli.commands.workspace import Workspace
from robustbench_cli.runs import folders, records

NET = ["--model", "strided-cnn:width=8,hidden=50"]


@pytest.fixture
def out(tmp_path):
    return tmp_path / "results"


def test_far_more_is_proven_of_it_than_of_a_plain_net(out):
    """At half of the radius it was trained at, where a plain net has all but nothing."""
    proven = {}
    trained = {"ibp": ("ibp:warmup=0.1,ramp=0.5", "10"), "standard": ("standard", "3")}
    for name, (defense, epochs) in trained.items():
        common = ["--out", str(out), "--quiet"]
        size = ["--epochs", epochs, "--batch-size", "16", "--lr", "0.003", "--set", "train.probe=0"]
        size += ["--set", "train.limit=600"]
        words = ["train", defense, *NET, *size, "--eps", "0.05", "--name", name, *common]
        assert main(words) == 0
        words = ["eval", "--run", name, "--certify", "ibp", "--eps", "0.025", "--n", "100"]
        assert main([*words, "--no-checks", "--name", f"{name}-eval", *common]) == 0
        run = records.read(folders.find_run(f"{name}-eval", out, "eval"))
        (within,) = [w for w in run.certificates["ibp"].within if w.eps == 0.025]
        proven[name] = within.correct / 100
    assert proven["ibp"] > proven["standard"] + 0.25, proven


@pytest.mark.parametrize(
    "defense", ["ibp:warmup=0.2,ramp=0.6,curve=smooth", "crown-ibp:warmup=0.1,ramp=0.6", "diffai"]
)
def test_a_resumed_run_equals_an_uninterrupted_one(defense, out, tmp_path, stopping):
    typed = {
        "defense": defense_tables(defense),
        "model": component_table("model", NET[1]),
        "train": {"epochs": 4, "batch_size": 32, "lr": 0.003},
        "threat": {"norm": "Linf", "eps": 0.05},
    }
    config = resolve_train_config(typed, ["train.limit=96", "train.probe=8"])
    weights = {}
    for name, display in {"whole": stopping(99), "broken": stopping(2, batches=1)}.items():
        workspace = Workspace(out=out, data_dir=tmp_path, device="cpu")
        if name == "broken":
            with pytest.raises(KeyboardInterrupt):
                run_training(config, workspace, display, command=[], run_id=name)
            resume_training(name, workspace, stopping(99))
        else:
            run_training(config, workspace, display, command=[], run_id=name)
        run = records.read(folders.find_run(name, out, "train"))
        weights[name] = run.checkpoint.sha256
        assert len(run.history) == 4
    assert weights["whole"] == weights["broken"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ibp"], "ibp: no bounds are known for BatchNorm2d in training mode (body.bn1); train a"),
        (["crown-ibp", "--model", "ibp-small"], "images of 8x8 are too small; both sides must be"),
        (["ibp+he", *NET], "ibp: no bounds are known"),
        (["ibp+mixup", *NET], "needs one label per image"),
        (["ibp:kappa=2", *NET], "kappa"),
        (["ibp", *NET, "--mask", "border:width=2"], "ibp trains on bounds of whole Linf, L2 or L1"),
        (["ibp", *NET, "--norm", "L0"], "train with --norm Linf, L2 or L1"),
    ],
)
def test_what_cannot_be_had_is_one_line_and_no_folder(words, said, out, capsys):
    assert main(["train", *words, "--out", str(out), "--quiet"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert said in err
    assert not out.exists()
