"""``advbench list``: names of everything, and the runs."""

import os
import pty
import re
import shutil
import subprocess
import sys
import termios
from datetime import UTC, datetime
from pathlib import Path

import pytest

from robustbench_cli.cli import main
from robustbench_cli.config import catalogue

ROOT = Path(__file__).parents[2]
START = datetime(2026, 1, 1, 12, tzinfo=UTC)


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


def test_an_unknown_kind_costs_one_line(refused):
    assert refused("list", "atacks") == "unknown kind 'atacks'; did you mean 'attacks'?"


def test_a_damaged_record_is_named(refused, results, capsys):
    file = results / "[bold]x" / "run.json"
    file.write_text("{")
    assert main(["list", "runs", "--results", str(results)]) == 0
    listed, warned = capsys.readouterr()
    assert warned.startswith(f"warning: {file} is damaged: ")
    assert len(listed.splitlines()) == 3
    assert str(file) in refused("show", str(file.parent))


def test_the_help_names_every_kind(capsys):
    assert main(["list", "--help"]) == 0
    shown = re.sub(r"-\n\s+", "-", capsys.readouterr().out)  # a line may end at a hyphen
    words = set(re.findall(r"[a-z]+(?:-[a-z]+)*", shown))
    assert {*catalogue.KINDS, "runs"} <= words
