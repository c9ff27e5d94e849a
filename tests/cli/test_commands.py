"""The commands end to end on the digits, as a user types them."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from robustbench_cli.cli import main
from robustbench_cli.commands import components, train_config
from robustbench_cli.commands.eval_config import chosen_attacks
from robustbench_cli.commands.training_task import training_task
from robustbench_cli.config import presets
from robustbench_cli.core.registry import Spec
from robustbench_cli.data import DATASETS
from robustbench_cli.runs import folders

ROOT = Path(__file__).parents[2]
SMALL = ["--set", "train.limit=200", "--set", "train.probe=40", "--set", "model.width=4"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two defenses, trained and evaluated."""
    out = tmp_path_factory.mktemp("cli") / "results"
    for defense in ("standard", "trades:steps=2+awp:warmup=0+he"):
        assert main(["train", defense, "--epochs", "4", "--out", str(out), *SMALL]) == 0
        args = ["eval", "--attack", "fgsm", "--attack", "pgd5", "--n", "50"]
        assert main([*args, "--out", str(out)]) == 0
    return out


def test_eps_walks_from_the_command_line_to_the_record(results, tmp_path):
    out = ["--out", str(tmp_path)]
    assert main(["train", "pgd-at:steps=1", "--eps", "16/255", "--epochs", "1", *out, *SMALL]) == 0
    (run,) = folders.every(tmp_path)
    assert run.config["threat"] == {"norm": "Linf", "eps": 16 / 255}
    assert main(["eval", "--attack", "pgd3", "--eps", "8/255", "--n", "30", *out]) == 0
    evaluation = folders.every(tmp_path)[-1]
    assert evaluation.config["threat"]["eps"] == 8 / 255
    with np.load(tmp_path / evaluation.id / "examples.npz") as arrays:
        assert 0 < arrays["pgd3/norm"].max() <= 8 / 255 + 1e-6
    assert main(["eval", "--attack", "pgd3", "--norm", "L2", "--n", "30", *out]) == 0
    other = folders.every(tmp_path)[-1]
    assert other.config["threat"] == {"norm": "L2", "eps": 1.0}  # not 16/255 in another norm


def test_a_flag_beats_the_preset_even_when_it_is_falsy(tmp_path):
    preset = tmp_path / "p.toml"
    preset.write_text(
        "seed = 7\n[defense.trades]\nbeta = 3\n[defense.awp]\ngamma = 0.02\nwarmup = 0\n"
        "[threat]\neps = '0.1'\n[train]\nepochs = 9\n"
    )
    chosen = train_config.resolve_train_config({"preset": str(preset), "seed": 0}, [])
    assert (chosen.seed, chosen.train.epochs, chosen.threat.eps) == (0, 9, 0.1)
    assert chosen.defense["trades"]["beta"] == 3.0
    assert chosen.preset == "p"
    # Naming the recipe decides the parts; what the preset says of them stays.
    only = train_config.resolve_train_config(
        {"preset": str(preset), "defense": components.defense_tables("trades")}, []
    )
    assert list(only.defense) == ["trades"]
    assert only.defense["trades"]["beta"] == 3.0
    typed = components.defense_tables("trades:beta=1+awp")
    both = train_config.resolve_train_config(
        {"preset": str(preset), "defense": typed}, ["defense.awp.gamma=0"]
    )
    assert (both.defense["trades"]["beta"], both.defense["awp"]["gamma"]) == (1.0, 0.0)
    other = train_config.resolve_train_config(
        {"preset": str(preset), "defense": components.defense_tables("mart")}, []
    )
    assert list(other.defense) == ["mart"]
    assert other.defense["mart"]["beta"] == 6.0


def test_eval_takes_the_latest_run_and_prints_the_accuracies(results, capsys):
    assert main(["eval", "--attack", "fgsm", "--n", "20", "--quiet", "--out", str(results)]) == 0
    out, err = capsys.readouterr()
    assert not err
    assert "trades:steps=2+awp:warmup=0+he (last, epoch 4) on digits, Linf eps 0.15" in out
    assert "clean" in out
    assert Path(out.strip().splitlines()[-1]).is_dir()


def test_old_protocols_are_asked_for_and_shown(results, capsys):
    args = ["eval", "--attack", "pgd2", "--attack", "aa", "--last-iterate", "--restarts", "2"]
    options = {"last_iterate": True, "restarts": 2}
    labels = chosen_attacks(["pgd2", "aa"], None, options)
    assert list(labels) == ["pgd2:last_iterate=true,restarts=2", "aa"]
    assert labels["pgd2:last_iterate=true,restarts=2"]["restarts"] == 2
    assert main([*args, "--n", "4", "--out", str(results)]) == 0
    assert "last_iterate=true" in capsys.readouterr().out


def test_attack_keeps_the_examples_and_a_picture(results, capsys):
    assert main(["attack", "pgd5", "--n", "12", "--out", str(results)]) == 0
    folder = Path(capsys.readouterr().out.strip().splitlines()[-1])
    with np.load(folder / "adversarial.npz") as saved:
        x, x_adv = saved["x"], saved["x_adv"]
        assert x.shape == x_adv.shape == (12, 1, 8, 8)
        assert x_adv.dtype == np.float32
        assert np.abs(x_adv - x).max() <= 0.15 + 1e-6
        wrong = saved["clean"] != saved["y"]
        assert not (saved["norm"][wrong] > 0).any()
        np.testing.assert_allclose(
            saved["norm"], np.abs(x_adv - x).reshape(12, -1).max(1), atol=1e-7
        )
        assert ((saved["step"] >= 0) == (~wrong & (saved["adversarial"] != saved["y"]))).all()
        for name in ("clean", "adversarial"):
            sure = saved[f"{name}_confidence"]
            assert sure.shape == (12,)
            assert ((sure > 0.1) & (sure <= 1)).all()  # the largest of ten
        assert list(saved["classes"]) == list("0123456789")
    from PIL import Image, ImageColor

    from robustbench_cli.commands.adversarial_grid import CELL, RIGHT, WRONG

    with Image.open(folder / "adversarial.png") as picture:
        assert picture.size[0] > 3 * CELL
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24)}
        signs = {ImageColor.getrgb(RIGHT), ImageColor.getrgb(WRONG)}
        assert signs <= colours


def test_images_that_fall_are_told_by_their_files(results, tmp_path, capsys):
    from PIL import Image

    digits = DATASETS.build(Spec("digits")).load("test", tmp_path)
    for i in range(40):
        place = tmp_path / "photos" / "test" / str(int(digits.y[i]))
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits.x[i, 0].numpy()).save(place / f"photo-{i}.png")
    data = ["--dataset", f"folder:{tmp_path / 'photos'}", "--n", "40"]
    assert main(["attack", "pgd5", *data, "--out", str(results)]) == 0
    folder = Path(capsys.readouterr().out.strip().splitlines()[-1])
    with np.load(folder / "adversarial.npz") as saved:
        names, labels = saved["name"], saved["y"]
    assert len({*names}) == 40
    for name, label in zip(names, labels, strict=True):
        assert re.fullmatch(rf".*{label}/photo-\d+\.png", name)


def test_a_model_of_the_user_s_own(results, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(
        "import torch\n"
        "def make():\n"
        "    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))\n"
    )
    args = ["--model", "net.py:make", "--dataset", "digits", "--attack", "pgd2", "--n", "20"]
    assert main(["eval", *args]) == 0
    assert "net.py:make on digits" in capsys.readouterr().out
    assert main(["report"]) == 0
    assert "net.py:make" in capsys.readouterr().out
    # A registered architecture with a weights file gives what the run itself gives.
    run = next(r for r in folders.every(results) if r.kind == "train")
    weights = results / run.id / "model.safetensors"
    registered = ["--model", "digits-cnn:width=4", "--weights", str(weights)]
    attacks = ["--dataset", "digits", "--attack", "fgsm", "--n", "50", "--eps", "0.15"]
    assert main(["eval", *registered, *attacks]) == 0
    mine = folders.every(tmp_path / "results")[-1]
    theirs = next(r for r in folders.every(results) if r.kind == "eval")
    assert mine.clean_accuracy == theirs.clean_accuracy
    assert mine.attacks["fgsm"].correct == theirs.attacks["fgsm"].correct


def test_report_has_a_row_per_run(results, capsys):
    assert main(["report", "--results", str(results), "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert any("standard" in json.dumps(row) for row in rows)
    assert main(["report", "--results", str(results), "--format", "md"]) == 0
    assert "| pgd5" in capsys.readouterr().out


@pytest.mark.usefixtures("scanned_once")
@pytest.mark.parametrize("name", presets.preset_names())
def test_every_preset_resolves_and_names_its_source(name, asking):
    text = presets.preset_file(name).read_text()
    assert "https://" in text
    chosen = training_task(asking(name)).configure(asking(name), [])
    assert chosen.preset == name
    assert presets.preset_summary(name)


@pytest.mark.parametrize("name", presets.preset_names("suites"))
def test_every_suite_resolves(name):
    assert chosen_attacks([], name, {})


def test_help_and_version_are_quick():
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    for flag in ("--help", "--version"):
        command = [sys.executable, "-m", "robustbench_cli", flag]
        spent = []
        for _ in range(5):
            began = resource.getrusage(resource.RUSAGE_CHILDREN)
            done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
            ended = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent.append(ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime)
        assert done.stdout
        # Processor time, best of five: what the command costs, not what else the machine does.
        assert min(spent) < 0.4


def test_standard_output_is_the_product(tmp_path, capsys):
    args = ["train", "standard", "--epochs", "2", "--out", str(tmp_path), "--name", "x", *SMALL]
    assert main(args) == 0
    out, err = capsys.readouterr()
    assert out.strip() == str(tmp_path / "x")
    assert [line.split("  ")[0] for line in err.strip().splitlines()] == ["epoch 1/2", "epoch 2/2"]
    assert "\x1b" not in out + err  # not a terminal: no control codes


def test_the_images_that_attacks_keep_are_compared_as_verdicts(results, tmp_path, capsys):
    """The same attack on the same model, kept and evaluated, agrees image by image."""
    shutil.copytree(results, tmp_path / "all")
    where = ["--out", str(tmp_path / "all"), "--eps", "0.02", "--n", "50", "--no-checks"]
    assert main(["attack", "pgd5", "--name", "images", *where]) == 0
    assert main(["eval", "--attack", "pgd5", "--name", "verdicts", *where]) == 0
    capsys.readouterr()
    words = ["compare", "images", "verdicts", "--results", str(tmp_path / "all"), "--json"]
    assert main(words) == 0
    clean, pgd, worst = json.loads(capsys.readouterr().out)
    assert [line["images"] for line in (clean, pgd, worst)] == [[], [], []]
    assert pgd["both_right"] == pytest.approx(50 * pgd["second_accuracy"])
    assert pgd["both_right"] <= clean["both_right"] > 0
