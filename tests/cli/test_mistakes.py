"""Every mistake costs one line and exit code 2, and leaves nothing behind."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from robustbench_cli.cli import main
from robustbench_cli.runs import records

SMALL = ["--set", "train.limit=150", "--set", "train.probe=20", "--set", "model.width=4"]


@pytest.fixture
def advbench(capsys, tmp_path, monkeypatch):
    """Run a command in an empty folder; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*args):
        code = main([str(a) for a in args])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    results = folder / "results"
    args = ["train", "standard", "--epochs", "1", "--out", str(results), "--name", "net", *SMALL]
    assert main(args) == 0
    return results


def images(root, split, counts, size=8):
    for name, count in counts.items():
        folder = root / split / name
        folder.mkdir(parents=True)
        for i in range(count):
            shade = (hash((name, i)) % 200, 30, 60)
            Image.new("RGB", (size, size), shade).save(folder / f"{i}.png")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["train", "tradse"], "unknown defense 'tradse'; did you mean 'trades'?"),
        (["train", "trades", "--dataset", "cifar11"], "did you mean 'cifar10'"),
        (["train", "trades", "--model", "resnet-81"], "unknown model 'resnet-81'; did you mean"),
        (["train", "--preset", "trades-minst"], "unknown preset 'trades-minst'; did you mean"),
        (["train", "--preset", "?"], "unknown preset '?'; see advbench list presets (or give"),
        (["train", "?"], "unknown defense '?'; see advbench list defenses"),
        (["train"], "name a defense"),
        (["train", "trades+pgd-at"], "exactly one objective, 'trades+pgd-at' has 2"),
        (["train", "awp"], "exactly one objective, 'awp' has 0"),
        (["train", "trades:btea=1"], "did you mean 'beta'"),
        (["train", "trades:beta=-1"], "greater than or equal to 0"),
        (["train", "trades:steps=-3"], "greater than or equal to 1"),
        (["train", "trades", "--eps", "0"], "eps must be positive"),
        (["train", "trades", "--eps", "-8/255"], "eps must be positive"),
        (["train", "trades", "--eps", "8"], "did you mean '8/255'"),
        (["train", "trades", "--eps", "eight"], "'eight'"),
        (["train", "trades", "--eps", "inf"], "eps: Input should be a finite number, got 'inf'"),
        (["train", "pgd-at:step=inf"], "'step': Input should be a finite number, got 'inf'"),
        (["train", "trades:beta=nan"], "'beta': Input should be a finite number, got 'nan'"),
        (["train", "trades", "--lr", "1e400"], "train.lr: Input should be a finite number"),
        (["train", "trades", "--set", "optimizer.weight_decay=inf"], "a finite number"),
        (["train", "trades", "--seed", "-1"], "seed: Input should be greater than or equal to 0"),
        (["train", "trades", "--norm", "L3"], "L1, L2, Linf, patch or spatial, got 'L3'"),
        (["train", "trades", "--epochs", "0"], "greater than or equal to 1"),
        (["train", "trades", "--lr", "-1"], "greater than 0"),
        (["train", "trades", "--set", "train.epoch=3"], "'train.epoch'; did you mean 'epochs'"),
        (["train", "trades", "--set", "threat.esp=0.1"], "'threat.esp'; did you mean 'eps'?"),
        (["train", "trades", "--set", "epochs"], "expected key=value"),
        (["train", "trades", "--set", "model.widht=3"], "did you mean 'width'"),
        (["train", "trades", "--precision", "fp8"], "'auto', 'float32' or 'bf16'"),
        (["train", "trades", "--device", "quantum"], "unknown device 'quantum'"),
        (["train", "trades", "--set", "train.select=best"], "needs a validation split"),
        (["train", "trades", "--set", "train.validation=1297"], "leaves nothing"),
        (["train", "trades", "--resume", "x"], "--resume goes on with the settings of the run"),
        (["train", "--resume", "x"], "no train run 'x'"),
        (["train", "trades", "--epoch", "3"], "No such option: --epoch"),
        (["train", "trades+awp", "--epochs", "4"], "awp would never act"),
        (["eval"], "name an attack"),
        (["eval", "--attack", "pgd20"], "no finished train run"),
        (["eval", "--attack", "pgd-20-"], "unknown attack 'pgd-20-'; did you mean 'pgd'"),
        (["eval", "--suite", "papers"], "unknown suite 'papers'; did you mean 'paper'? (or"),
        (["eval", "--attack", "pgd20", "--model", "a.py:f"], "--model needs --dataset"),
        (
            ["eval", "--attack", "fgsm", "--model", "net.py", "--dataset", "digits"],
            "model 'net.py': expected path/to/file.py:function",
        ),
        (["eval", "--attack", "pgd20", "--weights", "w.pt"], "--weights goes with --model"),
        (
            ["eval", "--attack", "pgd20", "--sweep", "eps=0,0.1", "--sweep", "steps=1,5"],
            "--sweep is given 2 times; it takes one value",
        ),
        (["attack", "pgd20", "--eps", "0.1", "--eps=0.2"], "--eps is given 2 times"),
        (["eval", "--attack", "pgd20", "--n", "0"], "--n 0: give a number from 1 on, or leave"),
        (["eval", "--attack", "pgd20", "--n", "-3"], "--n -3: give a number from 1 on"),
        (["detect", "eval", "--attack", "pgd20", "--n", "0"], "--n 0: give a number from 1 on"),
        (["joint", "--images", "5", "--n", "0"], "--n 0: give a number from 1 on"),
        (["train", "trades", "--name", ""], "--name '': give a value, or leave --name out"),
        (["train", "trades", "--preset="], "--preset '': give a value"),
        (["eval", "--attack", "pgd20", "--attack", ""], "--attack '': give a value"),
        (["synth", "fit", "gaussian", "--name", ""], "--name '': give a value"),
        (["study", "at-family", "--seeds", ""], "--seeds '': give a value"),
        (["study", "at-family", "--only", ","], "this study has no run ''"),
        (["paper", "show", "trades", "--table", ""], "--table '': give a value"),
        (["report"], "no finished evaluation"),
        (["trian"], "No such command 'trian'"),
        (["list", "atacks"], "attacks"),
        (["show", "tradse"], "did you mean 'trades'"),
    ],
)
def test_one_line_exit_two_and_nothing_left(args, message, advbench, tmp_path):
    code, out, err = advbench(*args)
    assert code == 2
    assert message in err
    assert err.startswith("advbench: ")
    assert err.count("\n") == 1
    assert not out
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_no_cuda_device(advbench, tmp_path):
    code, _, err = advbench("train", "trades", "--device", "cuda")
    assert code == 2
    assert "no CUDA device 'cuda'" in err
    assert not list(tmp_path.iterdir())


def test_a_dataset_that_is_absent_and_cannot_be_fetched(advbench, tmp_path):
    blocked = tmp_path / "data"
    blocked.write_text("a file where the folder should go")
    code, _, err = advbench("train", "trades", "--dataset", "cifar10", "--data-dir", blocked)
    assert code == 2
    assert "cifar10" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_an_empty_class_folder(advbench, tmp_path):
    images(tmp_path / "set", "train", {"cat": 3, "dog": 3})
    images(tmp_path / "set", "test", {"cat": 3, "dog": 0})
    code, _, err = advbench("train", "standard", "--dataset", "folder:set")
    assert code == 2
    assert "dog" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_dlr_needs_four_classes(advbench, tmp_path):
    for split in ("train", "test"):
        images(tmp_path / "set", split, {"cat": 12, "dog": 12})
    code, *_ = advbench(
        "train",
        "standard",
        "--dataset",
        "folder:set",
        "--model",
        "digits-cnn:width=2",
        "--epochs",
        1,
    )
    assert code == 0
    code, _, err = advbench("eval", "--attack", "autoattack-reference")
    assert code == 2
    assert "needs at least 4 classes; the data set has 2" in err
    assert "or autoattack, which runs what is defined for so few" in err
    assert len(list((tmp_path / "results").iterdir())) == 1


def test_resume_of_a_finished_run(advbench, trained):
    code, _, err = advbench("train", "--resume", "net", "--out", trained)
    assert code == 2
    assert "run 'net' is finished" in err


def test_a_name_that_is_taken(advbench, trained):
    code, _, err = advbench("train", "standard", "--name", "net", "--out", trained, *SMALL)
    assert code == 2
    assert "choose another --name" in err


def test_a_results_folder_that_is_not_writable(advbench, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = advbench("train", "standard", "--out", "file/results", *SMALL)
    assert code == 2
    assert "not writable" in err


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return torch.full((len(x), 10), float('nan'))", "NaN or infinite logits"),
        ("return torch.zeros(len(x), 7)", "7"),
        ("raise RuntimeError('shapes')", "shapes"),
    ],
)
def test_a_model_of_the_user_s_own_that_cannot_be_judged(body, message, advbench, tmp_path):
    (tmp_path / "net.py").write_text(
        "import torch\nclass Net(torch.nn.Module):\n"
        f"    def forward(self, x):\n        {body}\ndef make():\n    return Net()\n"
    )
    code, _, err = advbench(
        "eval", "--model", "net.py:make", "--dataset", "digits", "--attack", "fgsm"
    )
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "results").exists()


FAILS = """
import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(64, 10)
    def forward(self, x):
        logits, x = self.head(x.flatten(1)), x.flatten(1)
        return torch.where(({when}).any(1, keepdim=True), float("nan"), logits)
def make():
    net = Net()
    net.head.bias.data[8] = 9.0  # right about three of the first ten
    return net
"""
BRIGHT = "x.sum(1, keepdim=True) > 21"  # of the first ten test images five, but not the first two
CHANGED = "(x * 255 - (x * 255).round()).abs() > 1e-3"


@pytest.mark.parametrize("command", [["eval", "--attack", "fgsm"], ["attack", "fgsm"]])
@pytest.mark.parametrize(("when", "kept"), [(BRIGHT, False), (CHANGED, True)])
def test_nan_is_the_user_s_and_leaves_only_verdicts(command, when, kept, advbench, tmp_path):
    (tmp_path / "net.py").write_text(FAILS.format(when=when))
    model = ["--model", "net.py:make", "--dataset", "digits", "--n", 10, "--eps", "0.11"]
    code, _, err = advbench(*command, *model, "--name", "x", "--quiet")
    assert code == 2
    assert err == ("advbench: the model returned NaN or infinite logits; no verdict is possible\n")
    folder = tmp_path / "results" / "x"
    assert folder.exists() == kept
    assert not kept or records.read(folder).status == "failed"


@pytest.mark.parametrize(
    ("command", "default"),
    [
        ("train", "digits)."),
        ("eval", "the run's own;"),
        ("attack", "the run's own;"),
        ("bench", "all but those on request)."),
    ],
)
def test_help_says_which_data_are_taken_where_none_are_named(command, default, advbench):
    code, out, _ = advbench(command, "--help")
    told = " ".join(out.partition("--dataset <")[2].split())
    assert code == 0
    assert told.partition("(default: ")[2].startswith(default)


def test_weights_of_another_architecture(advbench, trained):
    weights = trained / "net" / "model.safetensors"
    code, _, err = advbench(
        "eval",
        "--model",
        "digits-cnn:width=8",
        "--weights",
        weights,
        "--dataset",
        "digits",
        "--attack",
        "fgsm",
    )
    assert code == 2
    assert "does not fit the model" in err
    assert "shape" in err


def test_weights_that_hold_code_are_not_run(advbench, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "boom",))

    torch.save({"weight": Bomb()}, tmp_path / "w.pt")
    code, _, err = advbench(
        "eval",
        "--model",
        "digits-cnn",
        "--weights",
        "w.pt",
        "--dataset",
        "digits",
        "--attack",
        "fgsm",
    )
    assert code == 2
    assert "never runs code" in err
    assert not (tmp_path / "boom").exists()


def test_damaged_records_and_checkpoints(advbench, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "results")
    file = tmp_path / "results" / "net" / "run.json"
    whole = file.read_text()
    file.write_text(whole[:200])
    code, _, err = advbench("eval", "--attack", "fgsm")
    assert code == 2
    assert "run.json is damaged" in err
    file.write_text(whole)
    (tmp_path / "results" / "net" / "model.safetensors").write_bytes(b"\0" * 50)
    code, _, err = advbench("eval", "--attack", "fgsm")
    assert code == 2
    assert "model.safetensors' is damaged" in err


def test_a_damaged_record_of_another_run_is_named_and_left_out(advbench, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "results")
    bad = tmp_path / "results" / "other" / "run.json"
    bad.parent.mkdir()
    bad.write_text("{}")
    for name in ("net", "ne", "results/net"):
        code, _, err = advbench("eval", "--attack", "fgsm", "--n", 20, "--run", name)
        assert code == 0, err
        assert "other/run.json is damaged" in err.splitlines()[0]
    code, _, err = advbench("report")
    assert code == 0
    assert "other/run.json is damaged" in err.splitlines()[0]
    for args in (
        ["eval", "--attack", "fgsm"],
        ["eval", "--attack", "fgsm", "--run", "o"],
    ):
        code, _, err = advbench(*args)
        assert code == 2
        assert "other/run.json is damaged" in err


def test_only_runs_that_could_be_meant_are_suggested(advbench, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "results")
    code, *_ = advbench("eval", "--attack", "fgsm", "--n", 8, "--name", "nets")
    assert code == 0
    code, _, err = advbench("eval", "--attack", "fgsm", "--run", "netz")
    assert code == 2
    assert err == "advbench: no train run 'netz' in 'results'; did you mean 'net'?\n"
    _, _, err = advbench("eval", "--attack", "fgsm", "--run", "?")
    assert err == "advbench: no train run '?' in 'results'; known: net\n"


def test_too_many_examples_asked_for(advbench, trained):
    code, _, err = advbench("eval", "--attack", "fgsm", "--n", 501, "--out", trained)
    assert code == 2
    assert "the test split has 500" in err


def test_debug_shows_the_traceback(advbench):
    code, _, err = advbench("train", "tradse", "--debug")
    assert code == 2
    assert "Traceback" in err
    assert err.endswith("did you mean 'trades'?\n")


def test_a_failed_run_is_exit_code_one(advbench, tmp_path):
    code, _, err = advbench(
        "train", "standard", "--name", "x", "--set", "optimizer.name=sgd", "--lr", "1e30", *SMALL
    )
    assert code == 1
    assert "not finite" in err.splitlines()[-1]
    assert "; nothing is kept; " in err.splitlines()[-1]
    assert json.loads((tmp_path / "results" / "x" / "run.json").read_text())["status"] == "failed"


def test_weights_that_the_last_step_of_an_epoch_ruins_are_a_failed_run(advbench, tmp_path):
    one = [*SMALL, "--batch-size", 150, "--epochs", 1]
    code, _, err = advbench("train", "standard", "--name", "x", "--lr", "1e30", *one)
    assert code == 1
    assert "after epoch 1 the model returned NaN" in err.splitlines()[-1]
    assert "; nothing is kept; " in err.splitlines()[-1]


def test_weights_are_looked_at_where_nothing_is_measured(advbench, tmp_path):
    one = [*SMALL, "--batch-size", 150, "--epochs", 1, "--set", "train.probe=0"]
    code, _, err = advbench("train", "standard", "--name", "x", "--lr", "1e30", *one)
    assert code == 1
    expected = "the model's weights or logits are not finite after epoch 1; nothing is kept; "
    assert expected in err.splitlines()[-1]
    folder = tmp_path / "results" / "x"
    assert json.loads((folder / "run.json").read_text())["status"] == "failed"
    assert not (folder / "model.safetensors").exists()


def interrupt(*_, **__):
    raise KeyboardInterrupt


def test_ctrl_c_says_how_to_go_on(advbench, tmp_path, monkeypatch):
    from robustbench_cli.training.trainer import Trainer

    monkeypatch.setattr(Trainer, "epoch", interrupt)
    code, _, err = advbench("train", "standard", "--name", "x", *SMALL)
    assert code == 130
    assert "Go on with: advbench train --resume x" in err
    assert records.read(tmp_path / "results" / "x").status == "interrupted"
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    code, out, _ = advbench("train", "--resume", "x")
    assert code == 0
    assert out.strip() == "results/x"


@pytest.mark.parametrize("at", ["commands.train._prepare", "commands.devices.run_environment"])
def test_ctrl_c_before_there_is_a_record_leaves_nothing(at, advbench, tmp_path, monkeypatch):
    monkeypatch.setattr(f"robustbench_cli.{at}", interrupt)
    code, _, err = advbench("train", "standard", "--name", "x", *SMALL)
    assert code == 130
    assert err.splitlines()[-1] == "advbench: interrupted; nothing was begun yet."
    assert not list(tmp_path.iterdir())


def test_ctrl_c_while_the_first_record_is_written(advbench, tmp_path, monkeypatch):
    whole, calls = records.write, []

    def write(run, folder):
        if not calls:
            calls.append(run)
            raise KeyboardInterrupt
        return whole(run, folder)

    monkeypatch.setattr(records, "write", write)
    code, _, err = advbench("train", "standard", "--name", "x", *SMALL)
    assert code == 130
    assert "advbench train --resume x" in err
    assert records.read(tmp_path / "results" / "x").status == "interrupted"


@pytest.mark.parametrize(
    ("args", "at"),
    [
        (["attack", "fgsm", "--n", 8], "commands.attack_columns.run_stages"),
        (["attack", "fgsm", "--n", 8], "commands.attack.adversarial_grid.draw_adversarial_grid"),
        (["detect", "fit", "gaussian"], "commands.detect.checkpoint.save_tensors"),
        (["synth", "fit", "pixels"], "commands.synth.checkpoint.save_tensors"),
    ],
)
def test_ctrl_c_keeps_nothing_where_it_says_so(args, at, advbench, trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / "results")
    with monkeypatch.context() as patch:
        patch.setattr(f"robustbench_cli.{at}", interrupt)
        code, _, err = advbench(*args, "--name", "x")
    assert code == 130
    assert err.splitlines()[-1] == "advbench: interrupted; nothing is kept of it."
    assert [folder.name for folder in (tmp_path / "results").iterdir()] == ["net"]
    code, *_ = advbench(*args, "--name", "x")
    assert code == 0


@pytest.mark.parametrize("command", [["show", "pgd"], ["list", "defenses"]])
def test_a_reader_that_went_away_is_no_failure(command):
    """As ``| head -1`` does; click ends the program then, which is no model's doing."""
    process = subprocess.Popen(
        [sys.executable, "-m", "robustbench_cli", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    with process.stderr as told:
        assert told.read() == ""
    assert process.wait() == 0
