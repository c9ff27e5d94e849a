"""What ``advbench list`` and ``advbench show`` say."""

import os
import pty
import re
import shutil
import subprocess
import sys
import termios
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from robustbench_cli.cli import main
from robustbench_cli.config import catalogue, presets
from robustbench_cli.runs import records
from robustbench_cli.runs.records import Checkpoint, Outcome, Run

ROOT = Path(__file__).parents[2]
START = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def results(tmp_path):
    """A training run, an evaluation of it, and a run that failed."""
    common = {"subject": "trades", "dataset": {"name": "digits"}}
    runs = [
        Run(
            **common,
            id="trades-digits-s3-20260101-1200-4f1a",
            kind="train",
            status="ok",
            created=START,
            command=["train", "trades", "--set", "train.limit=200 "],
            config={
                "defense": {"trades": {"name": "trades", "beta": 6.0}, "awp": {"name": "awp"}},
                "threat": {"norm": "Linf", "eps": 8 / 255},
                "train": {"epochs": 2},
                "seed": 3,
                "preset": None,
            },
            seed=3,
            history=[
                {"epoch": 1, "train_clean": 0.5, "train_robust": 0.2},
                {
                    "epoch": 2,
                    "train_clean": 0.75,
                    "train_robust": 0.5,
                    "val_clean": 0.7,
                    "val_robust": 0.4,
                },
            ],
            checkpoint=Checkpoint(file="model.safetensors", sha256="w", epoch=2, rule="last"),
            seconds=61.4,
        ),
        Run(
            **common,
            id="eval-trades-digits-s3-20260101-1210-77aa",
            kind="eval",
            status="ok",
            created=START + timedelta(minutes=10),
            command=["eval", "--attack", "pgd20"],
            config={"dataset": {"name": "digits"}},
            parent="trades-digits-s3-20260101-1200-4f1a",
            seed=3,
            n=100,
            weights="w" * 64,
            clean_accuracy=0.9,
            worst_case_accuracy=0.52,
            attacks={
                "pgd20": Outcome(
                    params={"name": "pgd"},
                    n=100,
                    correct=52,
                    robust_accuracy=0.52,
                    forwards=1,
                    backwards=1,
                    seconds=1.0,
                )
            },
        ),
        Run(
            id="[bold]x",
            kind="train",
            status="failed",
            created=START + timedelta(minutes=20),
            command=["train"],
            config={},
            error="RunError: the loss is NaN",
        ),
    ]
    for run in runs:
        (tmp_path / "results" / run.id).mkdir(parents=True)
        records.write(run, tmp_path / "results" / run.id)
    return tmp_path / "results"


@pytest.fixture
def said(results, capsys):
    def run(command, *args):
        assert main([command, *args, "--results", str(results)]) == 0
        return capsys.readouterr().out

    return run


@pytest.fixture
def refused(results, capsys):
    def run(command, *args):
        assert main([command, *args, "--results", str(results)]) == 2
        out = capsys.readouterr()
        assert not out.out
        assert out.err.count("\n") == 1
        return out.err.removeprefix("advbench: ").strip()

    return run


def facts(text):
    """The two-column part of an explanation."""
    return dict(re.findall(r"^(\w+(?: \w+)?) {2,}(\S.*)$", text, re.MULTILINE))


def test_shipped_runs_are_listed_and_shown_only_when_named(results, said, refused):
    shipped = results / "reference" / "study" / "theirs"
    shutil.copytree(next(file.parent for file in results.glob("*/run.json")), shipped)
    assert "theirs" not in said("list", "runs")
    assert "theirs" in refused("show", "theirs")
    assert said("show", str(shipped))


def test_everything_but_runs_is_listed_once(said):
    out = said("list")
    for kind in catalogue.KINDS:
        assert re.search(f"^{kind}$", out, re.MULTILINE)
        for item in catalogue.scan(kind):
            assert re.search(rf"^  {re.escape(item.name)}  .*{re.escape(item.summary)}$", out, re.M)
    assert "4f1a" not in out
    assert not re.search(r" $", out, re.MULTILINE)


def test_one_kind_is_listed_with_its_spellings(said):
    out = said("list", "attacks")
    assert re.search(r"^  bim +i-fgsm, bim<steps> +PGD without the random start", out, re.M)
    assert "trades" not in out


def test_objectives_come_before_modifiers(said):
    groups = re.findall(r"  (objective|modifier): ", said("list", "defenses"))
    assert groups == sorted(groups, reverse=True)
    assert set(groups) == {"objective", "modifier"}


def test_runs_are_listed_with_their_numbers(said):
    lines = said("list", "runs").splitlines()
    local = START.astimezone()
    assert [line.split()[0] for line in lines[1:]] == [
        "trades-digits-s3-20260101-1200-4f1a",
        "eval-trades-digits-s3-20260101-1210-77aa",
        "[bold]x",
    ]
    assert re.search(
        rf"train +ok +trades +digits +{local:%Y-%m-%d %H:%M} +epoch 2/2  "
        r"train: clean 75.0% pgd10 50.0%  held out: clean 70.0% pgd10 40.0%$",
        lines[1],
    )
    assert lines[2].endswith("clean 90.00%  pgd20 52.00%")
    assert re.search(r"train +failed .*RunError: the loss is NaN$", lines[3])


def test_no_runs_is_no_mistake(tmp_path, capsys):
    assert main(["list", "runs", "--results", str(tmp_path)]) == 0
    assert "no runs in" in capsys.readouterr().out


def test_a_narrow_terminal_keeps_a_run_s_name_whole(results):
    parent, child = pty.openpty()
    termios.tcsetwinsize(child, (50, 60))
    env = {k: v for k, v in os.environ.items() if k != "COLUMNS"}
    subprocess.run(
        [sys.executable, "-m", "robustbench_cli", "list", "runs", "--results", results],
        stdout=child,
        cwd=ROOT,
        env=env | {"TERM": "xterm"},
        check=True,
    )
    os.close(child)
    shown = os.read(parent, 65536).decode()
    os.close(parent)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown.replace("\r", "")).splitlines()
    assert max(map(len, lines)) <= 60
    assert "eval-trades-digits-s3-20260101-1210-77aa" in lines


@pytest.mark.parametrize(("command", "args"), [("list", []), ("list", ["runs"])])
def test_lists_do_not_import_torch(results, without_torch, command, args):
    done = without_torch(command, *args, "--results", results)
    assert done.returncode == 0, done.stderr


def test_a_short_form_is_resolved(said):
    out = said("show", "pgd100")
    assert out.startswith("pgd100  attack\nIterated steepest ascent")
    assert facts(out)["means"] == "pgd:steps=100"
    assert facts(out)["also"] == "pgd<steps>"
    assert facts(out)["paper"] == "Projected gradient descent (Madry et al., 2018)"
    assert facts(out)["link"] == "https://arxiv.org/abs/1706.06083"
    assert facts(out)["example"] == "advbench eval --attack pgd100"
    assert re.search(r"^steps +int >= 1 +20 +100 +Gradient steps$", out, re.MULTILINE)


def test_parameters_are_resolved(said):
    out = said("show", "trades:beta=1")
    assert re.search(r"^beta +number >= 0 +6 +1 +Weight of the boundary term", out, re.MULTILINE)
    assert "means" not in facts(out)
    assert facts(said("show", "at"))["means"] == "pgd-at"


def test_without_parameters_only_the_defaults_are_shown(said):
    out = said("show", "trades")
    assert re.search(r"^parameter +type +default +meaning$", out, re.MULTILINE)
    assert facts(out)["example"] == "advbench train trades"


def test_every_part_of_a_defense_is_explained(said):
    out = said("show", "trades+awp")
    assert re.findall(r"^(\w+)  (objective|modifier)$", out, re.MULTILINE) == [
        ("trades", "objective"),
        ("awp", "modifier"),
    ]
    assert "advbench train trades+awp" in out


def test_what_a_dataset_brings_along_is_shown(said):
    out = said("show", "cifar10")
    assert "Linf=8/255" in facts(out)["usual"]
    assert "preact-resnet-18" in facts(out)["usual"]
    assert facts(said("show", "folder"))["example"].endswith("--dataset folder:PATH")
    assert facts(said("show", "autoattack"))["usual"] == "at least 4 classes"


@pytest.mark.parametrize("name", presets.preset_names())
def test_a_preset_is_shown_as_it_is_written(said, name):
    out = said("show", name)
    path = presets.preset_file(name)
    assert facts(out)["file"] == str(path)
    assert path.read_text() in out
    needed = presets.as_typed(presets.needs(name))
    assert facts(out).get("needs", "") == ", ".join(needed)
    assert facts(out)["example"] == " ".join([f"advbench train --preset {name}", *needed])


@pytest.mark.parametrize(
    ("folder", "kind", "example"),
    [("suites", "suite", "advbench eval --suite "), ("benches", "bench", "advbench bench ")],
)
def test_suites_and_benches_are_shown_as_they_are_written(said, folder, kind, example):
    for name in presets.preset_names(folder):
        out = said("show", name)
        assert out.startswith(f"{name}  {kind}\n")
        assert presets.preset_file(name, folder).read_text() in out
        assert facts(out)["example"] == example + name


@pytest.mark.parametrize("folder", ["suites", "benches"])
def test_the_base_of_a_suite_or_bench_is_no_preset(said, tmp_path, monkeypatch, folder):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "first.toml").write_text("[attack.pgd]\n")
    text = 'base = "first"\n[attack.fgsm]\n'
    (tmp_path / folder / "second.toml").write_text(text)
    monkeypatch.setattr(presets, "folder", lambda *_: tmp_path)
    out = said("show", "second")
    assert text in out
    assert "needs" not in facts(out)


@pytest.mark.parametrize(
    "name", [item.name for kind in catalogue.REGISTRIES for item in catalogue.scan(kind)]
)
def test_everything_listed_is_explained(said, name):
    out = said("show", name)
    assert out.startswith(f"{name}  ")
    assert facts(out)["example"].startswith("advbench ")


@pytest.mark.parametrize("name", ["trades-digits-s3-20260101-1200-4f1a", "4f1a", "trades-dig"])
def test_a_run_is_summed_up(said, results, name):
    out = said("show", name)
    assert out.startswith("trades-digits-s3-20260101-1200-4f1a  train run, ok")
    told = facts(out)
    assert told["folder"] == str(results / "trades-digits-s3-20260101-1200-4f1a")
    assert told["command"] == "advbench train trades --set 'train.limit=200 '"
    assert told["weights"] == "model.safetensors, epoch 2 (last)"
    assert told["defense"] == "trades: name=trades, beta=6; awp: name=awp"
    assert told["threat"] == "norm=Linf, eps=8/255"
    assert told["accuracy"].startswith("epoch 2/2  train: clean 75.0%")
    assert "preset" not in told


def test_an_evaluation_names_the_run_it_is_of(said):
    told = facts(said("show", "77aa"))
    assert told["trained by"] == "trades-digits-s3-20260101-1200-4f1a, seed 3"
    assert told["accuracy"] == "clean 90.00%  pgd20 52.00%"
    assert told["examples"] == "100"


def test_a_run_is_found_by_its_path_and_its_name_is_no_markup(said, results):
    assert said("show", str(results / "[bold]x")).startswith("[bold]x  train run, failed")
    assert said("show", "[bold]x").startswith("[bold]x  train run, failed")


def test_a_name_of_several_kinds_shows_each(said, results):
    run = records.read(results / "[bold]x")
    (results / "trades").mkdir()
    records.write(run, results / "trades")
    out = said("show", "trades")
    assert "trades  objective\n" in out
    assert "[bold]x  train run, failed\n" in out


def test_mistakes_cost_one_line(refused):
    assert refused("list", "atacks") == "unknown kind 'atacks'; did you mean 'attacks'?"
    assert refused("show", "tradse") == "unknown name 'tradse'; did you mean 'trades'?"
    assert refused("show", "wnr") == "unknown name 'wnr'; did you mean 'wrn'?"
    assert refused("show", "?") == "unknown name '?'; see advbench list"
    assert refused("show", "trades+awpp").startswith("unknown name 'trades+awpp'")
    assert refused("show", "20260101").startswith("run '20260101' is ambiguous: eval-trades")
    assert "no parameter 'btea'; did you mean 'beta'?" in refused("show", "trades:btea=1")
    assert "greater than or equal to 1" in refused("show", "pgd0")


def test_a_damaged_record_is_named(refused, results):
    file = results / "[bold]x" / "run.json"
    file.write_text("{")
    assert str(file) in refused("list", "runs")
