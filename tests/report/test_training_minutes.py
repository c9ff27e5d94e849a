"""The column ``minutes``: CPU time of a training, where it is asked for."""

import json
import shutil

import pytest

from robustbench_cli.cli import main
from robustbench_cli.runs import records


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    out = tmp_path_factory.mktemp("minutes")
    small = ["--epochs", "2", "--set", "train.limit=256", "--set", "model.width=4", "--quiet"]
    for seed in ("0", "1"):
        assert (
            main(["train", "standard", "--seed", seed, "--name", seed, "--out", str(out), *small])
            == 0
        )
        assert (
            main(
                [
                    "eval",
                    "--run",
                    seed,
                    "--attack",
                    "fgsm",
                    "--n",
                    "20",
                    "--out",
                    str(out),
                    "--quiet",
                ]
            )
            == 0
        )
    return out


def spent(out, name):
    return sum(row["cpu_seconds"] for row in records.read(out / name).history) / 60


def test_it_is_the_cpu_time_of_all_epochs(results, capsys):
    words = ["report", "--results", str(results), "--json"]
    assert main([*words, "--columns", "clean,minutes"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    expected = (spent(results, "0") + spent(results, "1")) / 2
    assert row["minutes"] == pytest.approx(expected)
    assert row["minutes"] > 0


def test_it_is_shown_only_where_it_is_asked_for_and_no_best_is_marked(results, capsys):
    assert main(["report", "--results", str(results)]) == 0
    assert "minutes" not in capsys.readouterr().out
    assert main(["report", "--results", str(results), "--columns", "minutes,fgsm"]) == 0
    shown = capsys.readouterr().out
    assert "minutes = CPU time of the training" in shown
    assert "**" not in shown


def test_a_run_of_an_older_version_has_no_minutes(results, tmp_path, capsys):
    shutil.copytree(results, tmp_path / "old")
    for seed in ("0", "1"):
        file = tmp_path / "old" / seed / "run.json"
        record = json.loads(file.read_text())
        for row in record["history"]:
            del row["cpu_seconds"]
        file.write_text(json.dumps(record))
    words = ["report", "--results", str(tmp_path / "old"), "--columns", "clean,minutes"]
    assert main(words) == 2
    assert "minutes" in capsys.readouterr().err
