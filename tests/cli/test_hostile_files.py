"""No file of the user's ends a run silently, writes elsewhere or sends commands to a terminal."""

import json
import os
import pickle
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch

from robustbench_cli.cli import main
from robustbench_cli.runs import records

NET = """
import sys
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head, self.calls = nn.Linear(64, 10), 0
    def forward(self, x):
        self.calls += 1
        if self.calls > {calls}:
            {last}
        return self.head(x.flatten(1))
"""
EVALUATE = ["eval", "--dataset", "digits", "--attack", "fgsm", "--n", "8", "--device", "cpu"]


@pytest.fixture
def evaluate(tmp_path, capsys):
    """Evaluate a model whose code is given; return the exit code and what was said."""

    def run(source):
        (tmp_path / "mine.py").write_text(source)
        model = ["--model", f"{tmp_path / 'mine.py'}:Net", "--out", str(tmp_path / "results")]
        code = main([*EVALUATE, *model, "--quiet"])
        return code, capsys.readouterr().err

    return run


@pytest.mark.parametrize("calls", [0, 1, 3])
@pytest.mark.parametrize("last", ["sys.exit()", "raise SystemExit(0)", "raise BaseException"])
def test_a_model_that_ends_the_program_is_a_mistake(evaluate, tmp_path, calls, last):
    code, said = evaluate(NET.format(calls=calls, last=last))
    assert code == 2
    assert said.count("\n") == 1
    assert "the model's own code ended the program (" in said
    for file in (tmp_path / "results").glob("*/run.json"):
        assert records.read(file.parent).status == "failed"


def test_a_model_without_such_code_is_evaluated(evaluate):
    code, _ = evaluate(NET.format(calls=10**9, last="sys.exit()"))
    assert code == 0


@pytest.fixture
def training(tmp_path):
    """Train a small model, once for each test, into ``results``."""
    words = ["train", "standard", "--epochs", "1", "--device", "cpu", "--quiet"]
    small = ["--set", "train.limit=100", "--set", "train.probe=20", "--set", "model.width=4"]

    def run(*more):
        where = ["--out", str(tmp_path / "results"), "--name", "net"]
        return main([*words, *small, *where, *more])

    return run


def test_a_lock_that_is_a_link_is_refused_and_its_target_kept(training, tmp_path, capsys):
    assert training() == 0
    folder, target = tmp_path / "results" / "net", tmp_path / "target"
    target.write_text("precious")
    lock = folder / ".lock"
    lock.unlink()
    lock.symlink_to(target)
    records.write(replace(records.read(folder), status="interrupted"), folder)
    capsys.readouterr()
    assert main(["train", "--resume", "net", "--out", str(tmp_path / "results")]) == 2
    said = capsys.readouterr().err
    assert said == f"advbench: lock {str(lock)!r} cannot be used: it is a symbolic link\n"
    assert target.read_text() == "precious"


def test_a_folder_that_is_a_link_is_not_taken_for_an_empty_run(training, tmp_path, capsys):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "net").symlink_to(tmp_path / "elsewhere")
    assert training() == 2
    assert "exists: choose another --name" in capsys.readouterr().err
    assert [*(tmp_path / "elsewhere").iterdir()] == []


def test_weights_that_were_replaced_while_a_run_was_killed_are_resumed(training, tmp_path, capsys):
    assert training() == 0
    folder = tmp_path / "results" / "net"
    assert not (folder / "state.safetensors").exists()
    records.write(replace(records.read(folder), status="started"), folder)
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    changed = {name: value + 1 for name, value in weights.items()}
    safetensors.torch.save_file(changed, folder / "model.safetensors")
    capsys.readouterr()
    command = ["eval", "--run", "net", "--attack", "fgsm", "--n", "8"]
    assert main([*command, "--out", str(tmp_path / "results")]) == 2
    said = capsys.readouterr().err
    assert said.endswith("resume it, with advbench train --resume net\n")


def test_the_state_to_resume_from_outlives_a_kill_before_the_end(training, tmp_path, monkeypatch):

    whole = records.write

    def write(run, folder):
        if run.status == "ok":
            assert (folder / "state.safetensors").is_file()
        return whole(run, folder)

    monkeypatch.setattr(records, "write", write)
    assert training() == 0
    assert not (tmp_path / "results" / "net" / "state.safetensors").exists()


def test_files_that_cannot_be_read_cost_one_line(training, tmp_path, capsys, monkeypatch):
    assert training() == 0
    denied = {"name": "run.json"}
    read = os.open
    whole = Path.open

    def closed(path, *args, **kwargs):
        if Path(path).name == denied["name"]:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *args, **kwargs)

    def closed_path(self, *args, **kwargs):
        if self.name == denied["name"]:
            raise PermissionError(13, "Permission denied", str(self))
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(os, "open", closed)
    monkeypatch.setattr(Path, "open", closed_path)
    where = ["--out", str(tmp_path / "results")]
    for name in ("run.json", "model.safetensors"):
        denied["name"] = name
        capsys.readouterr()
        assert main(["eval", "--run", "net", "--attack", "fgsm", *where]) == 2
        said = capsys.readouterr().err
        assert said.endswith(f"{name} cannot be read: Permission denied\n")
        assert said.count("\n") == 1


def test_a_full_disk_is_one_line(training, tmp_path, capsys, monkeypatch):

    import robustbench_cli.core.atomic_files as files

    whole = files.write_atomically

    def write(path, save):
        def fail(part):
            raise OSError(28, os.strerror(28), str(part))

        return whole(path, fail if path.name == "model.safetensors" else save)

    monkeypatch.setattr("robustbench_cli.training.checkpoint.write_atomically", write)
    assert training() == 1
    said = capsys.readouterr().err
    file = tmp_path / "results" / "net" / "model.safetensors"
    assert said == f"advbench: {str(file)!r} cannot be written: No space left on device\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--attack", "pgd2e19"], "unknown attack 'pgd2e19'"),
        (["--attack", f"pgd{10**20}"], "parameter 'steps': at most 2147483647, got 1000000"),
        (["--attack", "fgsm", "--name", "x" * 300], "300 characters are too many for a folder"),
        (["--attack", "fgsm", "--sweep", "eps=0,1/9000000,...,1"], "8999999 values are too many"),
        (
            ["--attack", "fgsm", "--sweep", "eps=" + ",".join(f"0.{i}" for i in range(1, 1100))],
            "1099 values are too many; a sweep has at most 1000",
        ),
    ],
)
def test_limits_cost_one_line_and_leave_no_folder(training, tmp_path, capsys, words, message):
    assert training() == 0
    before = {*(tmp_path / "results").iterdir()}
    capsys.readouterr()
    assert main(["eval", "--run", "net", *words, "--out", str(tmp_path / "results")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert message in said
    assert {*(tmp_path / "results").iterdir()} == before


EVIL = "=cmd()\x1b[31m\x1b[2J\x1b]0;title\x07\x9b1m\nsecond"


@pytest.fixture
def evil(trained, evaluated, kept, tmp_path):
    """Results whose names hold a formula, escapes and a line break."""
    run = trained(EVIL, id="net")
    judged = evaluated(run, {"fgsm": ({"name": "fgsm"}, 50)}, id="judged")
    kept(tmp_path / "results", run, judged)
    return tmp_path / "results"


@pytest.mark.parametrize(
    "command",
    [
        ["list", "runs"],
        ["show", "net"],
        *(["report", "--format", name] for name in ("terminal", "md", "latex", "csv", "json")),
    ],
)
def test_nothing_in_a_record_commands_a_terminal(command, evil, capsys):
    assert main([*command, "--results", str(evil)]) == 0
    shown = capsys.readouterr().out
    assert "cmd()" in shown
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", shown)


def test_what_is_wrong_with_a_record_commands_no_terminal(evil, capsys):
    (evil / "net" / "run.json").write_text("{")
    file = evil / "bad\x1b[2J" / "run.json"
    file.parent.mkdir()
    file.write_text("{")
    assert main(["report", "--results", str(evil)]) == 0
    assert "\x1b" not in capsys.readouterr().err


def test_a_spreadsheet_gets_no_formula(evil, capsys):
    assert main(["report", "--format", "csv", "--results", str(evil)]) == 0
    _, line = capsys.readouterr().out.splitlines()
    assert line.startswith("'=cmd() ")


def test_json_keeps_every_character(evil, capsys):
    assert main(["report", "--format", "json", "--results", str(evil)]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["defense"] == EVIL


def test_a_legacy_pickle_costs_one_line(training, tmp_path, capsys, recwarn):
    file = tmp_path / "old.pt"
    with file.open("wb") as handle:
        for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, sys.exit):
            pickle.dump(part, handle)
    model = ["--model", "digits-cnn", "--weights", str(file), "--dataset", "digits"]
    assert main(["eval", *model, "--attack", "fgsm", "--out", str(tmp_path / "results")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not recwarn.list
