"""What ``advbench report`` prints and writes."""

import csv
import io
import json
import os
import pty
import re
import subprocess
import sys
import termios
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from robustbench_cli import records
from robustbench_cli.cli import main
from robustbench_cli.records import Checkpoint, Outcome, Run

ROOT = Path(__file__).parents[2]
START = datetime(2026, 1, 1, tzinfo=UTC)
RIGHT = {
    # defense, seed: clean, fgsm, pgd20, of 100
    ("trades", 0): (90, 60, 52),
    ("trades", 1): (88, 61, 52),
    ("[bold]x", 0): (95, 60, 10),
    ("[bold]x", 1): (95, 61, 14),
}
MEANING = "accuracy in %, robust accuracy = right before and after the attack"
OF_SEEDS = f"{MEANING}; mean ± std over seeds"


def write(results, defense, seed, right, *, minute, n=100, rule="last", data="mnist"):
    """A training run and its evaluation."""
    clean, fgsm, pgd20 = right
    common = {
        "status": "ok",
        "seed": seed,
        "subject": defense,
        "dataset": {"name": data, "test_sha256": "f"},
    }
    model, threat = {"name": "small-cnn"}, {"norm": "Linf", "eps": 8 / 255}
    trained = Run(
        **common,
        id=f"train-{minute}",
        kind="train",
        created=START + timedelta(minutes=minute),
        command=["train", defense],
        config={"defense": {defense: {}}, "model": model, "threat": threat, "seed": seed},
        checkpoint=Checkpoint(file="m", sha256=f"weights {minute}", epoch=1, rule=rule),
    )
    asked = {"fgsm": ({"name": "fgsm"}, fgsm), "pgd20": ({"name": "pgd", "steps": 20}, pgd20)}
    judged = Run(
        **common,
        id=f"eval-{minute}",
        kind="eval",
        created=START + timedelta(minutes=minute, seconds=30),
        command=["eval"],
        config={"dataset": {"name": data}, "model": model, "threat": threat},
        parent=trained.id,
        weights=f"weights {minute}",
        n=n,
        clean_accuracy=clean / n,
        worst_case_accuracy=pgd20 / n,
        attacks={
            label: Outcome(
                params=params,
                n=n,
                correct=correct,
                robust_accuracy=correct / n,
                forwards=1,
                backwards=1,
                seconds=1.0,
            )
            for label, (params, correct) in asked.items()
        },
    )
    for run in (trained, judged):
        (results / run.id).mkdir(parents=True)
        records.write(run, results / run.id)


@pytest.fixture
def results(tmp_path):
    """Two defenses, two seeds, two attacks."""
    for minute, ((defense, seed), right) in enumerate(RIGHT.items()):
        write(tmp_path / "results", defense, seed, right, minute=minute)
    return tmp_path / "results"


@pytest.fixture
def report(results, capsys):
    def run(*args):
        assert main(["report", "--results", str(results), *args]) == 0
        return capsys.readouterr().out

    return run


@pytest.fixture
def refused(results, capsys):
    def run(*args):
        assert main(["report", "--results", str(results), *args]) == 2
        said = capsys.readouterr()
        assert not said.out
        assert said.err.count("\n") == 1
        return said.err.removeprefix("advbench: ").strip()

    return run


def on_a_terminal(width, *args):
    """What a person sees on a screen of this width, with the codes that make it bold."""
    parent, child = pty.openpty()
    termios.tcsetwinsize(child, (50, width))
    env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR")}
    done = subprocess.Popen(
        [sys.executable, "-m", "robustbench_cli", "report", *args],
        stdin=child,
        stdout=child,
        stderr=child,
        cwd=ROOT,
        env=env | {"TERM": "xterm"},
    )
    os.close(child)
    shown = b""
    while True:
        try:
            piece = os.read(parent, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        shown += piece
    os.close(parent)
    assert done.wait() == 0, shown.decode()
    return shown.decode().replace("\r", "")


def test_on_the_screen(report):
    assert report().splitlines() == [
        "defense   dataset   eps            n   seeds          clean           fgsm          pgd20",
        "─" * 89,
        "trades    mnist     Linf 8/255   100       2   89.00 ± 1.41   60.50 ± 0.71   52.00 ± 0.00",
        "[bold]x   mnist     Linf 8/255   100       2   95.00 ± 0.00   60.50 ± 0.71   12.00 ± 2.83",
        "",
        OF_SEEDS,
    ]


def test_markdown(report):
    assert report("--format", "md").splitlines() == [
        "| defense | dataset | eps | n | seeds | clean | fgsm | pgd20 |",
        "| :-- | :-- | :-- | --: | --: | --: | --: | --: |",
        "| trades | mnist | Linf 8/255 | 100 | 2 | 89.00 ± 1.41 | **60.50 ± 0.71** "
        "| **52.00 ± 0.00** |",
        r"| \[bold\]x | mnist | Linf 8/255 | 100 | 2 | **95.00 ± 0.00** | **60.50 ± 0.71** "
        "| 12.00 ± 2.83 |",
        "",
        OF_SEEDS,
    ]


def test_latex(report):
    assert report("--format", "latex").splitlines() == [
        "% needs the package booktabs",
        r"\begin{tabular}{lllrrrrr}",
        r"\toprule",
        r"defense & dataset & eps & n & seeds & clean & fgsm & pgd20 \\",
        r"\midrule",
        r"trades & mnist & Linf 8/255 & 100 & 2 & 89.00 $\pm$ 1.41 & \textbf{60.50 $\pm$ 0.71} "
        r"& \textbf{52.00 $\pm$ 0.00} \\",
        r"{[}bold{]}x & mnist & Linf 8/255 & 100 & 2 & \textbf{95.00 $\pm$ 0.00} "
        r"& \textbf{60.50 $\pm$ 0.71} & 12.00 $\pm$ 2.83 \\",
        r"\bottomrule",
        r"\end{tabular}",
        f"% {OF_SEEDS}",
    ]


def test_csv_has_full_precision(report):
    first, second = csv.DictReader(io.StringIO(report("--format", "csv")))
    facts = ["defense", "dataset", "norm", "eps", "n", "seeds"]
    accuracies = ["clean", "clean_std", "fgsm", "fgsm_std", "pgd20", "pgd20_std"]
    assert list(first) == [*facts, *accuracies]
    assert (first["defense"], first["seeds"]) == ("trades", "2")
    assert float(first["eps"]) == 8 / 255
    assert float(first["clean"]) == 0.89
    assert float(first["clean_std"]) == pytest.approx(2**0.5 / 100, abs=1e-15)
    assert second["defense"] == "[bold]x"
    assert float(second["pgd20"]) == 0.12


def test_json_has_everything(report):
    first, _ = json.loads(report("--format", "json"))
    assert first == {
        "defense": "trades",
        "dataset": "mnist",
        "model": "small-cnn",
        "norm": "Linf",
        "eps": 8 / 255,
        "n": 100,
        "seeds": [0, 1],
        "clean": 0.89,
        "clean_std": pytest.approx(0.0141421356),
        "fgsm": 0.605,
        "fgsm_std": pytest.approx(0.0070710678),
        "pgd20": 0.52,
        "pgd20_std": 0.0,
        "correct": {"clean": [90, 88], "fgsm": [60, 61], "pgd20": [52, 52]},
        "oracle": False,
        "runs": ["eval-0", "eval-1"],
    }


def test_intervals_take_the_place_of_deviations(report):
    out = report("--intervals", "--format", "md")
    assert "| **52.00 [45.1, 58.8]** |" in out
    assert f"{MEANING}; [95 % Wilson interval, seeds pooled]" in out
    assert "±" not in out
    row = json.loads(report("--intervals", "--format", "json"))[0]
    assert (row["pgd20_low"], row["pgd20_high"]) == pytest.approx((0.451, 0.588), abs=1e-3)


def test_a_row_that_compares_with_none_is_not_best(results, report):
    write(results, "mart", 0, (99, 99, 99), minute=9, n=200)
    out = report("--format", "md")
    (lone,) = (line for line in out.splitlines() if line.startswith("| mart"))
    assert "**" not in lone
    assert "**95.00 ± 0.00**" in out


def test_what_is_written_alike_is_best_together(results, report):
    write(results, "mart", 0, (950_102, 100, 100), minute=9, n=1_000_000, data="digits")
    write(results, "alp", 0, (950_098, 0, 0), minute=10, n=1_000_000, data="digits")
    out = report("--dataset", "digits", "--format", "md")
    assert out.count("**95.01**") == 2
    assert out.count("**") == 2 * 4
    assert "mnist" not in out


def columns(text):
    return [name.strip() for name in text.splitlines()[0].strip("| ").split("|")]


def test_columns_are_chosen_and_ordered(report):
    usual = ["defense", "dataset", "eps", "n", "seeds"]
    chosen = report("--format", "md", "--columns", "worst,pgd20,clean")
    assert columns(chosen) == [*usual, "worst", "pgd20", "clean"]
    assert "worst = right under every attack of an evaluation" in chosen
    only = report("--format", "md", "--columns", "pgd20, defense,model")
    assert columns(only) == ["pgd20", "defense", "model"]
    assert "| small-cnn |" in only


def test_a_column_s_own_comma_does_not_part_it(results, report):
    for file in results.glob("eval*/run.json"):
        file.write_text(file.read_text().replace('"pgd20"', '"pgd:steps=20,restarts=2"'))
    chosen = report("--format", "md", "--columns", "defense,pgd:steps=20,restarts=2,clean")
    assert columns(chosen) == ["defense", "pgd:steps=20,restarts=2", "clean"]


@pytest.mark.parametrize(
    ("by", "order"),
    [
        ("pgd20", ["trades", "[bold]x"]),
        ("-pgd20", ["[bold]x", "trades"]),
        ("clean", ["[bold]x", "trades"]),
        ("defense", ["[bold]x", "trades"]),
        ("-defense", ["trades", "[bold]x"]),
        ("worst", ["trades", "[bold]x"]),
    ],
)
def test_rows_are_sorted(report, by, order):
    found = json.loads(report("--format", "json", "--sort", by))
    assert [row["defense"] for row in found] == order


def test_rows_without_the_number_come_last_either_way(results, report):
    write(results, "mart", 0, (50, 50, 50), minute=9)
    file = results / "eval-9" / "run.json"
    run = records.read(file)
    run.attacks.pop("pgd20")
    records.write(run, file.parent)
    for by in ("pgd20", "-pgd20"):
        found = json.loads(report("--format", "json", "--sort", by))
        assert found[-1]["defense"] == "mart"
        assert "pgd20" not in found[-1]


def test_an_oracle_is_marked(results, report):
    write(results, "mart", 0, (50, 50, 50), minute=9, rule="oracle")
    note = "† weights chosen by test accuracy: an oracle"
    assert re.search(r"^mart † .*$", report(), re.MULTILINE)
    assert "| mart † |" in report("--format", "md")
    assert r"mart $^\dagger$ & mnist" in report("--format", "latex")
    assert note in report()
    assert json.loads(report("--format", "json"))[-1]["oracle"] is True


def test_names_cannot_break_a_format(results, report):
    name = "a_b*c|d\\e & f%g$h#i{j}~^<k>\n_l_\x1b[2J"
    write(results, name, 0, (50, 50, 50), minute=9)
    screen = report()
    assert len(screen.splitlines()) == 7
    assert "\x1b" not in screen
    line = report("--format", "md").splitlines()[4]
    assert line.startswith(r"| a_b\*c\|d\\e & f%g$h#i{j}\~^\<k> \_l\_ \[2J | mnist")
    assert (
        r"a\_b*c\textbar{}d\textbackslash{}e \& f\%g\$h\#i\{j\}\textasciitilde{}"
        r"\textasciicircum{}\textless{}k\textgreater{} \_l\_ {[}2J & mnist"
    ) in report("--format", "latex")
    assert json.loads(report("--format", "json"))[-1]["defense"] == name


def test_a_file_is_written_whole_and_named(results, report, tmp_path, capsys):
    for ending, format_ in ((".md", "md"), (".tex", "latex"), (".csv", "csv"), (".json", "json")):
        out = tmp_path / f"table{ending}"
        assert main(["report", "--results", str(results), "--out", str(out)]) == 0
        said = capsys.readouterr()
        assert not said.out
        assert str(out) in said.err
        assert out.read_text() == report("--format", format_)
    assert main(["report", "--results", str(results), "--out", str(out), "--format", "md"]) == 0
    assert out.read_text().startswith("| defense")
    assert not list(tmp_path.glob(".*"))


def test_mistakes_cost_one_line(refused, tmp_path, results):
    known = "known: csv, json, latex, md"
    assert refused("--format", "latx") == "no format 'latx' for the screen; did you mean 'latex'?"
    assert refused("--out", "t.txt") == f"no format '.txt' for t.txt; {known}"
    assert refused("--out", "t.md", "--format", "terminal").endswith(known)
    assert refused("--columns", "clean,pgd21") == "unknown column 'pgd21'; did you mean 'pgd20'?"
    assert refused("--sort", "-cleen") == "unknown column 'cleen'; did you mean 'clean'?"
    assert refused("--dataset", "mnits") == (
        "no finished evaluation on dataset 'mnits'; did you mean 'mnist'?"
    )
    assert "No such file" in refused("--out", str(tmp_path / "absent" / "t.md"))
    assert refused("--results", str(tmp_path / "none")) == (
        f"no finished evaluation in {str(tmp_path / 'none')!r}; evaluate a run first: "
        "advbench eval --attack pgd20"
    )
    (results / "eval-0" / "run.json").write_text("{")
    assert str(results / "eval-0" / "run.json") in refused()


def test_a_narrow_terminal_gets_whole_numbers(results):
    shown = on_a_terminal(60, "--results", str(results))
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
    assert max(map(len, plain)) <= 60
    assert plain[0] == "dataset mnist, eps Linf 8/255, n 100, seeds 2"
    assert "[bold]x   95.00 ± 0.00   60.50 ± 0.71   12.00 ± 2.83" in plain
    wide = on_a_terminal(50, "--results", str(results), "--columns", "clean,fgsm,pgd20,worst")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", wide).splitlines()
    assert "trades    89.00 ± 1.41   60.50 ± 0.71" in plain
    assert "trades    52.00 ± 0.00   52.00 ± 0.00" in plain


def test_a_terminal_shows_the_best_in_bold(results):
    shown = on_a_terminal(200, "--results", str(results))
    assert "\x1b[1m52.00 ± 0.00\x1b[0m" in shown
    assert "\x1b[1m12.00" not in shown
    assert "[bold]x" in shown


@pytest.mark.parametrize("format_", ["terminal", "md", "latex", "csv", "json"])
def test_no_report_imports_torch(results, format_):
    code = (
        "import sys; from robustbench_cli.cli import main;"
        "assert main(sys.argv[1:]) == 0; sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "report", "--results", results, "--format", format_],
        capture_output=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
