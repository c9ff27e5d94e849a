"""What ``advbench report`` prints and writes."""

import csv
import io
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import termios
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robustbench_cli.cli import main
from robustbench_cli.report.example_files import ExamplesFile
from robustbench_cli.report.statistics import wilson
from robustbench_cli.runs import records

ROOT = Path(__file__).parents[2]
RIGHT = {
    # defense, seed: clean, fgsm, pgd20, of 100
    ("trades", 0): (90, 60, 52),
    ("trades", 1): (88, 61, 52),
    ("x[bold]", 0): (95, 60, 10),
    ("x[bold]", 1): (95, 61, 14),
}
MEANING = "accuracy in %, robust accuracy = right before and after the attack"
OF_SEEDS = f"{MEANING}; mean ± std over seeds"
BOLD = "bold = better than every comparable row, each by a paired test on the same images "
BOLD += "(p below 0.05)"
TIED = "= the highest and those that no paired test tells from it"


@pytest.fixture
def write(trained, judged, kept):
    """Write a training run and its evaluation, which is right about the first images."""

    def both(results, defense, seed, right, *, minute, n=100, rule="last", data="mnist"):
        clean, fgsm, pgd20 = (np.arange(n) < each for each in right)
        parent = trained(defense, seed, rule=rule, data=data, id=f"train-{minute}")
        asked = {"fgsm": ({"name": "fgsm"}, fgsm), "pgd20": ({"name": "pgd", "steps": 20}, pgd20)}
        judged(results, parent, clean, asked, eps=8 / 255, id=f"eval-{minute}")
        kept(results, parent)

    return both


@pytest.fixture
def results(write, tmp_path):
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
    about = "mnist     Linf 8/255   100       2"
    assert report().splitlines() == [
        "defense   dataset   eps            n   seeds"
        "          clean             fgsm          pgd20",
        "─" * 91,
        f"trades    {about}   89.00 ± 1.41   = 60.50 ± 0.71   52.00 ± 0.00",
        f"x[bold]   {about}   95.00 ± 0.00   = 60.50 ± 0.71   12.00 ± 2.83",
        "",
        OF_SEEDS,
        BOLD,
        TIED,
    ]


def test_markdown(report):
    assert report("--format", "md").splitlines() == [
        "| defense | dataset | eps | n | seeds | clean | fgsm | pgd20 |",
        "| :-- | :-- | :-- | --: | --: | --: | --: | --: |",
        "| trades | mnist | Linf 8/255 | 100 | 2 | 89.00 ± 1.41 | = 60.50 ± 0.71 "
        "| **52.00 ± 0.00** |",
        r"| x\[bold\] | mnist | Linf 8/255 | 100 | 2 | **95.00 ± 0.00** | = 60.50 ± 0.71 "
        "| 12.00 ± 2.83 |",
        "",
        OF_SEEDS,
        "",
        BOLD,
        "",
        TIED,
    ]


def test_latex(report):
    assert report("--format", "latex").splitlines() == [
        "% needs the package booktabs",
        r"\begin{tabular}{lllrrrrr}",
        r"\toprule",
        r"defense & dataset & eps & n & seeds & clean & fgsm & pgd20 \\",
        r"\midrule",
        r"trades & mnist & Linf 8/255 & 100 & 2 & 89.00 $\pm$ 1.41 & = 60.50 $\pm$ 0.71 "
        r"& \textbf{52.00 $\pm$ 0.00} \\",
        r"x{[}bold{]} & mnist & Linf 8/255 & 100 & 2 & \textbf{95.00 $\pm$ 0.00} "
        r"& = 60.50 $\pm$ 0.71 & 12.00 $\pm$ 2.83 \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\par\smallskip",
        r"{\footnotesize",
        rf"{BOLD}\par",
        rf"{TIED}\par",
        "}",
        f"% {OF_SEEDS}",
    ]


def test_csv_has_full_precision(report):
    first, second = csv.DictReader(io.StringIO(report("--format", "csv")))
    facts = ["defense", "dataset", "norm", "eps", "n", "seeds"]
    accuracies = [
        *("clean", "clean_std", "clean_trust"),
        *("fgsm", "fgsm_std", "fgsm_trust"),
        *("pgd20", "pgd20_std", "pgd20_trust"),
    ]
    assert list(first) == [*facts, *accuracies]
    assert (first["defense"], first["seeds"]) == ("trades", "2")
    assert float(first["eps"]) == 8 / 255
    assert float(first["clean"]) == 0.89
    assert float(first["clean_std"]) == pytest.approx(2**0.5 / 100, abs=1e-15)
    assert second["defense"] == "x[bold]"
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
        "clean_trust": "sound",
        "fgsm": 0.605,
        "fgsm_std": pytest.approx(0.0070710678),
        "fgsm_trust": "sound",
        "pgd20": 0.52,
        "pgd20_std": 0.0,
        "pgd20_trust": "sound",
        "correct": {"clean": [90, 88], "fgsm": [60, 61], "pgd20": [52, 52]},
        "best": ["pgd20"],
        "tied": ["fgsm"],
        "findings": [],
        "oracle": False,
        "runs": ["eval-0", "eval-1"],
    }


def test_intervals_take_the_place_of_deviations(report):
    out = report("--intervals", "--format", "md")
    assert f"{MEANING}; [95 % interval: images and seeds resampled]" in out
    assert "±" not in out
    row = json.loads(report("--intervals", "--format", "json"))[0]
    # Both seeds are right about the same 52 of the 100 images.
    assert (row["pgd20_low"], row["pgd20_high"]) == pytest.approx(wilson(52, 100))
    assert "| **52.00 [42.3, 61.5]** |" in out


def test_without_verdicts_there_is_no_interval_over_seeds_and_the_reason_is_told(results, report):
    (results / "eval-1" / "examples.npz").unlink()
    out = report("--intervals", "--format", "md")
    assert "| 52.00 ± 0.00 |" in out
    assert "no interval for 3 number(s): examples.npz of 'eval-1' is missing" in out
    assert "| 95.00 [88.8, 97.8] |" in out
    row = json.loads(report("--intervals", "--format", "json"))[0]
    assert (row["pgd20_low"], row["pgd20_high"]) == (None, None)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda file: file.unlink(), "is missing"),
        (lambda file: file.write_bytes(file.read_bytes()[:-9]), "(sha256)"),
        (lambda file: file.write_bytes(b""), "(sha256)"),
        (lambda file: (file.unlink(), os.mkfifo(file)), "is missing"),
    ],
)
def test_without_verdicts_nothing_is_bold_and_the_reason_is_told(results, report, damage, said):
    damage(results / "eval-2" / "examples.npz")
    out = report("--format", "md")
    assert "**" not in out
    assert "| = " not in out
    note = out.splitlines()[-1]
    assert note.startswith("no best is marked in clean, fgsm, pgd20: examples.npz of 'eval-2' ")
    assert said in note
    assert json.loads(report("--format", "json"))[0]["best"] == []


def test_a_file_that_does_not_add_up_to_its_record_is_not_used(results, report):
    """A whole file with the sha256 of the record, but of other verdicts."""
    file = results / "eval-2" / "run.json"
    run = records.read(file)
    other = records.filed(
        shutil.copy(results / "eval-0" / "examples.npz", file.parent / "examples.npz")
    )
    records.write(replace(run, examples=other), file.parent)
    out = report("--format", "md")
    assert "**" not in out
    assert "examples.npz of 'eval-2' does not add up to its record" in out


def test_hidden_columns_cost_no_reading(results, report, monkeypatch):
    read, whole = [], ExamplesFile._read
    monkeypatch.setattr(
        ExamplesFile,
        "_read",
        lambda self, name: (read.append((self.run_id, name)), whole(self, name))[1],
    )
    report("--columns", "defense,fgsm")
    assert {name for _, name in read} == {"label", "clean/share", "fgsm/share"}
    assert len(read) == len(set(read)) == 4 * 3
    read.clear()
    report("--columns", "defense,eps")
    assert read == []


def test_a_row_that_compares_with_none_is_not_best(write, results, report):
    write(results, "mart", 0, (99, 99, 99), minute=9, n=200)
    out = report("--format", "md")
    (lone,) = (line for line in out.splitlines() if line.startswith("| mart"))
    assert "**" not in lone
    assert "**95.00 ± 0.00**" in out


def test_numbers_that_a_few_images_part_are_tied(write, results, report):
    write(results, "mart", 0, (9504, 100, 100), minute=9, n=10_000, data="digits")
    write(results, "vat", 0, (9499, 0, 0), minute=10, n=10_000, data="digits")
    out = report("--dataset", "digits", "--format", "md")
    assert "| = 95.04 |" in out
    assert "| = 94.99 |" in out
    assert out.count("**1.00**") == 2
    assert "mnist" not in out


def test_one_more_image_decides(write, results, report):
    """Six images against none: McNemar's p is 1/32; five: 1/16."""
    write(results, "mart", 0, (96, 50, 50), minute=9, data="digits")
    write(results, "vat", 0, (90, 50, 45), minute=10, data="digits")
    mart, vat = json.loads(report("--dataset", "digits", "--format", "json"))
    assert (mart["best"], mart["tied"]) == (["clean"], ["fgsm", "pgd20"])
    assert (vat["best"], vat["tied"]) == ([], ["fgsm", "pgd20"])


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
        ("pgd20", ["trades", "x[bold]"]),
        ("-pgd20", ["x[bold]", "trades"]),
        ("clean", ["x[bold]", "trades"]),
        ("defense", ["trades", "x[bold]"]),
        ("-defense", ["x[bold]", "trades"]),
        ("worst", ["trades", "x[bold]"]),
    ],
)
def test_rows_are_sorted(report, by, order):
    found = json.loads(report("--format", "json", "--sort", by))
    assert [row["defense"] for row in found] == order


def test_rows_without_the_number_come_last_either_way(write, results, report):
    write(results, "mart", 0, (50, 50, 50), minute=9)
    file = results / "eval-9" / "run.json"
    run = records.read(file)
    run.attacks.pop("pgd20")
    records.write(run, file.parent)
    for by in ("pgd20", "-pgd20"):
        found = json.loads(report("--format", "json", "--sort", by))
        assert found[-1]["defense"] == "mart"
        assert "pgd20" not in found[-1]


def test_an_oracle_is_marked(write, results, report):
    write(results, "mart", 0, (50, 50, 50), minute=9, rule="oracle")
    note = "† weights chosen by test accuracy: an oracle"
    assert re.search(r"^mart † .*$", report(), re.MULTILINE)
    assert "| mart † |" in report("--format", "md")
    assert r"mart $^\dagger$ & mnist" in report("--format", "latex")
    assert note in report()
    (mart,) = json.loads(report("--format", "json", "--defense", "mart*"))
    assert mart["oracle"] is True


def test_names_cannot_break_a_format(write, results, report):
    name = "a_b*c|d\\e & f%g$h#i{j}~^<k>\n_l_\x1b[2J"
    write(results, name, 0, (50, 50, 50), minute=9)
    screen = report()
    assert len(screen.splitlines()) == 9
    assert "\x1b" not in screen
    line = report("--format", "md").splitlines()[2]
    assert line.startswith(r"| a_b\*c\|d\\e & f%g$h#i{j}\~^\<k> \_l\_ \[2J | mnist")
    assert (
        r"a\_b*c\textbar{}d\textbackslash{}e \& f\%g\$h\#i\{j\}\textasciitilde{}"
        r"\textasciicircum{}\textless{}k\textgreater{} \_l\_ {[}2J & mnist"
    ) in report("--format", "latex")
    assert json.loads(report("--format", "json"))[0]["defense"] == name


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
    known = "known: csv, html, json, latex, md"
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


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda record: record["config"].pop("threat"), "its record has no 'threat'"),
        (lambda record: record["config"].update(threat=[]), "'threat' is wrong"),
        (lambda record: record["config"]["threat"].update(eps="big"), "'threat.eps' is wrong"),
        (lambda record: record["config"].update(model={"name": None}), "no 'name'"),
        (lambda record: record["dataset"].pop("test_sha256"), "no 'test_sha256'"),
        (lambda record: record.update(clean_accuracy=None), "no accuracies"),
        (lambda record: record.update(clean_accuracy=7), "no accuracy between 0 and 1"),
        (lambda record: record["attacks"]["fgsm"].update(correct=999), "999 right answers among"),
        (lambda record: record.update(created="2026-01-01T00:00:00"), "created"),
        (lambda record: record.update(examples={"file": "../x", "sha256": ""}), "own folder"),
        (lambda record: record.update(config=3), "config"),
    ],
)
@pytest.mark.parametrize("table", [(), ("--transfer",), ("--joint",), ("--paper", "trades")])
def test_a_damaged_record_is_named_and_keeps_no_table_from_others(
    results, more, capsys, break_it, said, table
):
    file = results / "eval-0" / "run.json"
    record = json.loads(file.read_text())
    break_it(record)
    file.write_text(json.dumps(record))
    code = main(["report", "--results", str(results), *table])
    first, *rest = capsys.readouterr().err.splitlines()
    assert code == 0 or table == ("--joint",), rest  # nothing joint is there in any case
    assert first.startswith(f"warning: {file} is damaged: ")
    assert said in first
    assert first.endswith("; left out")


def test_a_folder_or_a_pipe_in_place_of_a_record_is_left_out(results, capsys):
    whole = results / "eval-0" / "run.json"
    whole.unlink()
    whole.mkdir()
    (results / "pipe").mkdir()
    os.mkfifo(results / "pipe" / "run.json")
    assert main(["report", "--results", str(results)]) == 0
    said = capsys.readouterr().err.splitlines()
    assert f"{whole} cannot be read: Is a directory; left out" in said[0]
    assert "pipe/run.json cannot be read: it is no regular file; left out" in said[1]


def test_a_narrow_terminal_gets_whole_numbers(results):
    shown = on_a_terminal(60, "--results", str(results))
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
    assert max(map(len, plain)) <= 60
    assert plain[0] == "dataset mnist, eps Linf 8/255, n 100, seeds 2"
    assert "x[bold]   95.00 ± 0.00   = 60.50 ± 0.71   12.00 ± 2.83" in plain
    wide = on_a_terminal(50, "--results", str(results), "--columns", "clean,fgsm,pgd20,worst")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", wide).splitlines()
    assert "trades    89.00 ± 1.41   = 60.50 ± 0.71" in plain
    assert "trades    52.00 ± 0.00   52.00 ± 0.00" in plain


def test_a_terminal_shows_the_best_in_bold(results):
    shown = on_a_terminal(200, "--results", str(results))
    assert "\x1b[1m52.00 ± 0.00\x1b[0m" in shown
    assert "\x1b[1m12.00" not in shown
    assert "x[bold]" in shown


def test_csv_columns_stand_in_order_where_the_first_row_lacks_some(
    results, trained, evaluated, kept, report
):
    first = trained("early", id="early", data="a")
    kept(results, first, evaluated(first, {"pgd20": ({"name": "pgd", "steps": 20}, 50)}, id="e"))
    names = next(csv.reader(io.StringIO(report("--format", "csv"))))
    assert [name for name in names if "_" not in name][-3:] == ["clean", "fgsm", "pgd20"]
    assert names[-3:] == ["pgd20", "pgd20_std", "pgd20_trust"]


@pytest.fixture
def deepfool(results, trained, evaluated, kept):
    """Three more defenses under an attack for the nearest image, the last on other data."""
    far = {"mart": (0.12, 0.16), "vat": (0.09, 0.11), "he": (0.2, None)}
    for name, correct in {"mart": 40, "vat": 30, "he": 80}.items():
        for seed, distance in enumerate(far[name]):
            data = "digits" if correct < 80 else "cifar10"
            parent = trained(name, seed, id=f"{name}-{seed}", data=data)
            asked = {
                "deepfool": (
                    {"name": "deepfool"},
                    correct,
                    {"minimal": True, "median_norm": distance},
                )
            }
            judged = evaluated(parent, asked, eps=8 / 255, id=f"eval-{name}-{seed}")
            kept(results, parent, judged)


def test_distances_have_a_column_and_none_is_called_best(deepfool, report):
    args = ["--columns", "defense,deepfool,deepfool dist"]
    assert report("--format", "md", "--dataset", "digits", *args).splitlines() == [
        "| defense | deepfool | deepfool dist |",
        "| :-- | --: | --: |",
        "| mart | 40.00 ± 0.00 | 0.1400 ± 0.0283 |",
        "| vat | 30.00 ± 0.00 | 0.1000 ± 0.0141 |",
        "",
        OF_SEEDS,
        "",
        "no best is marked in deepfool: examples.npz of 'eval-mart-0' is missing",
        "",
        "no best is marked among distances: no test compares them",
        "",
        "dist = median distance to the nearest adversarial image that was found",
    ]
    other = report("--format", "latex", "--dataset", "cifar10", *args)
    assert r"he & 80.00 $\pm$ 0.00 & $\infty$ \\" in other
    assert "% ∞ = none was found for half of the images" in other


def test_distances_as_data(deepfool, report):
    first, last = json.loads(report("-f", "json", "--dataset", "digits", "--sort", "deepfool dist"))
    assert (first["defense"], last["defense"]) == ("mart", "vat")
    assert first["deepfool_dist"] == pytest.approx(0.14)
    assert first["distances"] == {"deepfool dist": [0.12, 0.16]}
    assert first["correct"] == {"clean": [90, 90], "deepfool": [40, 40]}
    (none,) = json.loads(report("-f", "json", "--dataset", "cifar10"))
    assert (none["deepfool_dist"], none["deepfool_dist_std"]) == (None, None)
    assert none["distances"] == {"deepfool dist": [0.2, None]}
    mart, _ = csv.DictReader(io.StringIO(report("-f", "csv", "--dataset", "digits")))
    assert float(mart["deepfool_dist_std"]) == pytest.approx(0.0282843, abs=1e-7)
    (he,) = csv.DictReader(io.StringIO(report("-f", "csv", "--dataset", "cifar10")))
    assert he["deepfool_dist"] == ""


@pytest.fixture
def more(results, trained, evaluated, kept):
    """A sweep and two transfers beside the usual evaluations."""
    pgd = {"name": "pgd", "steps": 20}
    one, two = (records.read(results / name) for name in ("train-0", "train-2"))
    points = {f"pgd20@eps={e}": (pgd, c, {"eps": e}) for e, c in ((0.1, 60), (0.2, 30))}
    common = {"eps": 8 / 255}
    kept(
        results,
        evaluated(one, points, sweep={"eps": [0.1, 0.2]}, id="sweep", **common),
        evaluated(one, {"pgd20": (pgd, 70)}, source=two, id="to-trades", **common),
        evaluated(two, {"pgd20": (pgd, 80)}, clean=95, source=one, id="to-x", **common),
    )


def test_sweeps_and_transfers_leave_the_main_table_as_it_was(results, report, more, capsys):
    assert main(["report", "--results", str(results)]) == 0
    said = capsys.readouterr()
    assert "52.00 ± 0.00" in said.out
    assert "@" not in said.out
    assert said.err == (
        "evaluations left out: 1 of a sweep (--sweeps, --plot FILE), "
        "2 with another model's images (--transfer, --sources)\n"
    )
    assert main(["report", "--results", str(results), "--sweeps"]) == 0
    said = capsys.readouterr()
    assert "sweep" not in said.err
    assert re.search(r"pgd20@eps=0.1 +pgd20@eps=0.2$", said.out.splitlines()[0])
    assert "60.00 (1/2)" in said.out


@pytest.mark.parametrize("named", ["folder:a/photos", "folder:photos"])
def test_what_is_left_out_of_a_folder_is_told_by_either_of_its_names(
    tmp_path, trained, evaluated, kept, capsys, named
):
    """Two folders of one name are told apart in the table, and so are their sweeps."""
    for place in "ab":
        at = {"name": "folder", "path": f"/data/{place}/photos"}
        parent = trained("trades", id=place, data="folder")
        plain = evaluated(parent, {"fgsm": ({"name": "fgsm"}, 60)}, id=f"{place}-eval", sha=place)
        points = {"fgsm@eps=0.1": ({"name": "fgsm"}, 60, {"eps": 0.1})}
        swept = {"sweep": {"eps": [0.1]}, "id": f"{place}-sweep", "sha": place}
        runs = [plain, evaluated(parent, points, **swept)]
        runs = [replace(run, config={**run.config, "dataset": at}) for run in runs]
        kept(tmp_path, parent, *runs)
    assert main(["report", "--results", str(tmp_path), "--dataset", named]) == 0
    count = 1 if named == "folder:a/photos" else 2
    said = f"evaluations left out: {count} of a sweep (--sweeps, --plot FILE)\n"
    assert capsys.readouterr().err == said


def test_a_part_of_the_test_images_is_told_of(tmp_path, trained, evaluated, kept, capsys):
    parent = trained("trades", id="all", data="mnist")
    attacks = {"fgsm": ({"name": "fgsm"}, 60)}
    some = evaluated(parent, attacks, id="some", sha="g")
    some = replace(some, config={**some.config, "subset": {"shuffle": 3}})
    kept(tmp_path, parent, evaluated(parent, attacks, id="plain"), some)
    assert main(["report", "--results", str(tmp_path), "--dataset", "mnist"]) == 0
    said = "evaluations left out: 1 on a part of mnist (--dataset 'mnist (shuffle 3)')\n"
    assert capsys.readouterr().err == said
    assert main(["report", "--results", str(tmp_path), "--dataset", "mnist (shuffle 3)"]) == 0
    assert not capsys.readouterr().err


def test_the_images_of_another_model_have_columns_in_the_row(results, report, more, capsys):
    """White-box and transfer side by side; the worst case is that of the model's own images."""
    plain, shown = report("--format", "json"), report("--format", "json", "--sources")
    before, after = json.loads(plain), json.loads(shown)
    assert "--sources" not in capsys.readouterr().err
    assert [row["runs"][0] for row in before] == [row["runs"][0] for row in after]
    moved = [
        (key, value)
        for row in after
        for key, value in row.items()
        if re.fullmatch(r"pgd20 from [^_]+", key) and value is not None
    ]
    assert sorted(value for _, value in moved) == [0.7, 0.8]
    assert [row.get("worst") for row in before] == [row.get("worst") for row in after]


def test_where_there_are_only_sweeps_they_are_shown(results, report, trained, evaluated, kept):
    parent = trained("mart", id="mart", data="digits")
    points = {"fgsm@eps=0.1": ({"name": "fgsm"}, 60, {"eps": 0.1})}
    kept(results, parent, evaluated(parent, points, sweep={"eps": [0.1]}, id="sweep"))
    shown = report("--format", "md", "--dataset", "digits")
    assert columns(shown)[-2:] == ["clean", "fgsm@eps=0.1"]
    assert "@" not in report("--format", "md")


def test_a_matrix_of_sources_and_targets(report, more):
    assert report("--transfer").splitlines() == [
        "pgd20: mnist, Linf 8/255, n 100",
        "crafted on         trades   x[bold]",
        "─" * 35,
        "nothing (clean)     90.00     95.00",
        "trades            52.00 *     80.00",
        "x[bold]             70.00   10.00 *",
        "",
        MEANING,
        "rows: the model that images were crafted on; columns: the one they were tried on",
        "with *: white box, a model's own images",
    ]
    assert report("--transfer", "--format", "md").splitlines()[:6] == [
        "pgd20: mnist, Linf 8/255, n 100",
        "",
        r"| crafted on | trades | x\[bold\] |",
        "| :-- | --: | --: |",
        "| nothing (clean) | 90.00 | 95.00 |",
        "| trades | 52.00 * | 80.00 |",
    ]
    tex = report("--transfer", "--format", "latex")
    assert "% pgd20: mnist, Linf 8/255, n 100" in tex
    assert r"x{[}bold{]} & 70.00 & 10.00 * \\" in tex


def test_a_matrix_as_data(report, more):
    found = json.loads(report("--transfer", "--format", "json"))
    pairs = {(line["source"], line["target"]): line for line in found}
    assert pairs["trades", "x[bold]"] == {
        "attack": "pgd20",
        "dataset": "mnist",
        "norm": "Linf",
        "eps": 8 / 255,
        "n": 100,
        "source": "trades",
        "target": "x[bold]",
        "white_box": False,
        "clean": 0.95,
        "clean_trust": "sound",
        "robust_accuracy": 0.8,
        "robust_accuracy_trust": "sound",
        "findings": [],
        "source_weights": pairs["trades", "trades"]["source_weights"],
        "target_weights": pairs["x[bold]", "x[bold]"]["target_weights"],
        "run": "to-x",
    }
    assert pairs["trades", "trades"]["white_box"] is True
    with_ends = list(csv.DictReader(io.StringIO(report("--transfer", "-f", "csv", "--intervals"))))
    assert len(with_ends) == 4
    assert float(with_ends[0]["low"]) == pytest.approx(0.4231, abs=1e-3)


def test_curves_are_drawn(results, more, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    for name in ("a", "b.png", "c.svg", "d.pdf"):
        assert main(["report", "--results", str(results), "--plot", str(tmp_path / name)]) == 0
        said = capsys.readouterr()
        base = tmp_path / name[0]
        assert not said.out
        assert said.err == f"written to {base}.png and {base}.svg and {base}.pdf\n"
    assert {file.name for file in tmp_path.glob("?.*")} == {
        f"{name}.{ending}" for name in "abcd" for ending in ("png", "svg", "pdf")
    }
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF-")


def test_mistakes_with_pictures_and_matrices_cost_one_line(refused, results, tmp_path):
    assert refused("--plot", "a", "--out", "t.md") == "--plot goes without --out"
    assert refused("--plot", "a", "--transfer") == "--plot goes without --transfer"
    assert refused("--transfer", "--sort", "pgd20") == "--transfer goes without --sort"
    assert "--sweep eps=0,2/255,...,8/255" in refused("--plot", str(tmp_path / "a"))
    assert "--source OTHER" in refused("--transfer")
    assert refused("--plot", "a.jpg") == (
        "--plot 'a.jpg': name a file; it gets the endings .png, .svg, .pdf"
    )
    assert "did you mean 'mnist'" in refused("--plot", "a", "--dataset", "mnits")


def test_a_picture_that_cannot_be_written_costs_one_line(refused, more, tmp_path):
    pytest.importorskip("matplotlib")
    assert "cannot be written" in refused("--plot", str(tmp_path / "absent" / "a"))


def test_only_transfers_say_where_they_are(refused, trained, evaluated, kept, results):
    one, two = (trained(name, id=name, data="digits") for name in ("vat", "mart"))
    kept(results, one, two, evaluated(one, {"fgsm": ({"name": "fgsm"}, 50)}, source=two, id="t"))
    assert refused("--dataset", "digits").endswith("add --transfer")


@pytest.mark.parametrize("args", ["terminal", "md", "latex", "csv", "json", "transfer", "plot"])
def test_no_report_imports_torch(results, more, tmp_path, without_torch, args):
    asked = {"transfer": ["--transfer"], "plot": ["--plot", tmp_path / "a"]}.get(args)
    asked = asked or ["--format", args]
    done = without_torch("report", "--results", results, *asked)
    assert done.returncode == 0, done.stderr


def test_a_setting_that_came_later_does_not_part_a_row(tmp_path, report, results):
    """An older record has none of it: its default was meant, and another value is another row."""
    for seed in (0, 1):
        for name in (f"pgd-at-s{seed}", f"pgd-at-s{seed}-eval"):
            folder = results / name
            shutil.copytree(ROOT / "results/reference/at-family-digits" / name, folder)
    older = results / "pgd-at-s0/run.json"
    run = json.loads(older.read_text())
    del run["config"]["train"]["collapse"], run["config"]["defense"]["pgd-at"]["attack_mode"]
    older.write_text(json.dumps(run))
    only = ["--dataset", "digits", "--format", "json"]
    (row,) = json.loads(report(*only))
    assert row["seeds"] == [0, 1]
    run["config"]["train"]["extra_share"] = 0.25
    older.write_text(json.dumps(run))
    assert len(json.loads(report(*only))) == 2
    run["config"]["train"] |= {"extra_share": 0.5, "gone since": 1}
    older.write_text(json.dumps(run))
    assert len(json.loads(report(*only))) == 2


def test_a_parameter_that_came_later_does_not_part_a_column(report, results):
    for name in (f"pgd-at-s{seed}{what}" for seed in (0, 1) for what in ("", "-eval")):
        shutil.copytree(ROOT / "results/reference/at-family-digits" / name, results / name)
    older = results / "pgd-at-s0-eval/run.json"
    run = json.loads(older.read_text())
    for params in (run["attacks"]["fgsm"]["params"], run["attacks"]["pgd20"]["params"]):
        del params["eot"], params["climbs"]
    older.write_text(json.dumps(run))
    (row,) = json.loads(report("--dataset", "digits", "--format", "json"))
    assert row["seeds"] == [0, 1]
    assert len(row["correct"]["fgsm"]) == len(row["correct"]["pgd20"]) == 2
    run["attacks"]["fgsm"]["params"]["gone since"] = 1
    older.write_text(json.dumps(run))
    (row,) = json.loads(report("--dataset", "digits", "--format", "json"))
    assert len(row["correct"]["pgd20"]) == 1  # what is not understood stays as it was
