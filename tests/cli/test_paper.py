"""``advbench paper`` and ``advbench report --paper``: what is printed, and what is refused."""

import csv
import io
import json
import os
import pty
import re
import shlex
import subprocess
import sys
import termios
from pathlib import Path

import pytest
import typer

from robustbench_cli import papers
from robustbench_cli.cli import app, completion, main
from robustbench_cli.papers.reading import load_paper

ROOT = Path(__file__).parents[2]
TRADES = {
    "defense": {"trades": {"name": "trades", "steps": 40, "step": 1 / 30, "beta": 6.0}},
    "dataset": {"name": "mnist"},
    "threat": {"norm": "Linf", "eps": 0.3},
    "train": {"epochs": 6, "limit": 0},
}
PGD = {"name": "pgd", "steps": 40, "step": 1 / 30, "start": "uniform", "last_iterate": False}
ROW = ["--paper", "trades", "--table", "5", "--dataset", "mnist"]


@pytest.fixture
def results(trained, evaluated, kept, tmp_path):
    """One model, two seeds, under PGD-40 on half of the test images."""
    for seed, right in enumerate((46, 48)):
        run = trained(seed=seed, id=f"trades-s{seed}", **TRADES)
        test = {"name": "mnist", "test": 100, "test_sha256": "f"}
        judged = evaluated(run, {"pgd40": (PGD, right)}, clean=49, n=50, dataset=test)
        kept(tmp_path / "results", run, judged)
    return tmp_path / "results"


@pytest.fixture
def said(capsys):
    def run(*args):
        assert main(list(map(str, args))) == 0
        return capsys.readouterr().out

    return run


@pytest.fixture
def refused(capsys):
    def run(*args):
        assert main(list(map(str, args))) == 2
        out = capsys.readouterr()
        assert not out.out
        assert out.err.count("\n") == 1
        return out.err.removeprefix("advbench: ").strip()

    return run


def on_a_terminal(width, *args):
    """What a person sees on a screen of this width."""
    parent, child = pty.openpty()
    termios.tcsetwinsize(child, (50, width))
    env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR")}
    done = subprocess.Popen(
        [sys.executable, "-m", "robustbench_cli", *map(str, args)],
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
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode().replace("\r", ""))


def test_papers_are_listed_with_their_tables(said):
    lines = {line.split()[0]: line for line in said("paper", "list").splitlines()[2:] if line}
    assert list(lines) == [*papers.paper_names(), *papers.paper_names(papers.BOARDS)]
    assert re.search(r"Theoretically .* 2019 +92 +4, 5, 6, 7$", lines["trades"])
    (awp,) = (line for line in json.loads(said("paper", "list", "-f", "json")) if
              line["paper"] == "awp")  # fmt: skip
    assert (awp["year"], awp["numbers"], awp["tables"]) == (2020, 94, "1, 2")


def test_a_table_is_printed_as_in_the_paper(said):
    lines = said("paper", "show", "awp", "--table", "2").splitlines()
    at = lines.index("table 2: CIFAR-10, Linf 8/255")
    assert lines[0] == "Adversarial Weight Perturbation Helps Robust Generalization"
    assert lines[at + 1].split() == ["method", "model", "clean", "FGSM", "PGD-20", "PGD-100",
                                     "CW_inf", "SPSA", "AutoAttack"]  # fmt: skip
    rows = [line.split() for line in lines[at + 3 :]]
    assert rows[0] == ["AT", "WRN-34-10", "86.07", "61.76", "56.10", "55.79", "54.19", "61.40",
                       "52.60", "(a)"]  # fmt: skip
    assert rows[9][:2] == ["RST-AWP", "WRN-28-10"]
    assert "table 2: std < 0.40 over 5 runs (caption); architecture per official README" in lines
    assert "(a) the cell carries a footnote mark whose text we have not read" in lines


def test_what_all_rows_share_is_said_once_and_the_rest_has_columns(said):
    lines = said("paper", "show", "robust-overfitting", "--table", "2").splitlines()
    assert "table 2: CIFAR-10, PreActResNet-18, Linf 8/255, PGD-10 (training attack)" in lines
    (head,) = (line for line in lines if line.startswith("method"))
    assert re.split(r" {2,}", head) == ["method", "final error", "best error", "diff"]
    first = said("paper", "show", "robust-overfitting", "--table", "1").splitlines()
    (head,) = (line for line in first if line.startswith("method"))
    assert re.split(r" {2,}", head)[:5] == ["method", "dataset", "model", "eps", "attack"]


@pytest.mark.parametrize("name", papers.paper_names())
def test_every_number_and_every_remark_is_shown(said, name):
    paper = load_paper(name)
    text = said("paper", "show", name, "--format", "md")
    written = [cell for line in text.splitlines() if line[:1] == "|" for cell in line.split(" | ")]
    for cell in paper.cells:
        assert any(entry.strip("| ").startswith(str(cell.value)) for entry in written), cell
        assert all(note in text for note in cell.notes)
    found = list(csv.DictReader(io.StringIO(said("paper", "show", name, "--format", "csv"))))
    numbers = [float(row["value"]) for row in found if row["value"]]
    assert numbers == [float(cell.value) for cell in paper.cells]


@pytest.mark.parametrize("name", ["perceptual-ball", "xai-inversion"])
@pytest.mark.parametrize("words", [["paper", "show"], ["report", "--paper"]])
def test_a_paper_without_a_number_says_why_and_what_measures_the_same(said, name, words, tmp_path):
    empty = ["--results", tmp_path] if words[0] == "report" else []
    paper = load_paper(name)
    for format_ in ("terminal", "md", "html", "csv", "json", "latex"):
        text = said(*words, name, "--format", format_, *empty)
        assert "No number:" in text
        assert "advbench report --kind" in " ".join(text.split())
        assert "accuracy in %" not in text
        assert format_ in ("csv", "json") or paper.title in text
    (only,) = json.loads(said(*words, name, "-f", "json", *empty))
    assert only == {"paper": name, "value": None, "lacking": paper.about}


def test_our_numbers_stand_beside_the_paper_s(said, results):
    lines = said("report", *ROW, "--results", results).splitlines()
    at = lines.index("table 5: MNIST, CNN [CW17]: 4 conv + 3 fc")
    assert re.split(r" {2,}", lines[at + 1]) == [
        "method", "eps", "measured", "paper", "ours", "diff", "run", "what differs (paper)",
    ]  # fmt: skip
    ours = [re.split(r" {2,}", line) for line in lines if re.search(r"\d [-+]\d|  A ", line)]
    assert ours == [
        ["TRADES 1/lambda=6", "Linf 0.3", "clean", "99.48 (e)", "98.00 ± 0.00", "-1.48", "A",
         "images 50 (100)"],
        ["", "FGSM^1000 (PGD)", "95.60 (f,g)", "94.00 ± 2.83", "-1.60", "A",
         "steps 40 (1000), iterate any (last), images 50 (100)"],
        ["", "FGSM^40 (PGD)", "96.07 (f)", "94.00 ± 2.83", "-2.07", "A",
         "iterate any (last), images 50 (100)"],
    ]  # fmt: skip
    assert "A = trades-s1 (2 seeds): epochs 6 (100)" in lines


def test_a_number_without_a_run_shows_how_to_get_it(said, results):
    lines = said("report", *ROW, "--results", results).splitlines()
    rows = [re.split(r" {2,}", line) for line in lines]
    (madry,) = (row for row in rows if row[0] == "[MMS+18]")
    assert madry[-1] == "[1]"
    (start,) = (i for i, line in enumerate(lines) if line.startswith("[1] "))
    offered = [lines[start].removeprefix("[1] "), *(line.strip() for line in lines[start + 1 :])]
    assert offered == [
        "advbench train pgd-at --preset madry-mnist",
        "advbench eval --attack pgd40:step=1/30,start=uniform,last_iterate=true",
    ]
    for line in offered:
        _, name, *words = shlex.split(line)
        typer.main.get_command(app).commands[name].make_context(name, words)
    (foreign,) = (row for row in rows if row[0] == "[SKC18]")
    assert foreign[-1] == "no such method here"


def test_without_any_run_every_number_is_a_command_or_a_reason(said, tmp_path):
    objects = json.loads(said("report", "--paper", "trades", "-f", "json", "--results", tmp_path))
    assert len(objects) == 92
    assert all(bool(each["commands"]) != bool(each["lacking"]) for each in objects)
    assert not any(each["runs"] for each in objects)


def test_data_formats_hold_everything(said, results):
    objects = json.loads(said("report", *ROW, "-f", "json", "--results", results))
    (pgd,) = (each for each in objects if each["attack"] == "FGSM^40 (PGD)" and each["ours"])
    assert (pgd["value"], pgd["ours"], pgd["difference"]) == (96.07, 94.0, -2.07)
    assert pgd["differs"] == ["epochs 6 (100)", "iterate any (last)", "images 50 (100)"]
    assert (pgd["n"], pgd["runs"][0]) == (50, "trades-s1")
    assert pgd["commands"] == [
        "advbench eval --run trades-s1 --attack pgd40:step=1/30,start=uniform,last_iterate=true"
    ]
    lines = list(csv.DictReader(io.StringIO(said("report", *ROW, "-f", "csv", "--results",
                                                 results))))  # fmt: skip
    assert [line["n"] for line in lines].count("50") == 3
    assert [line["differs"] for line in lines if line["attack"] == "FGSM^40 (PGD)"][1] == (
        "epochs 6 (100); iterate any (last); images 50 (100)"
    )


@pytest.mark.parametrize("ending", ["md", "tex", "csv", "json"])
def test_it_is_written_to_files(said, results, tmp_path, ending):
    file = tmp_path / f"trades.{ending}"
    assert said("report", *ROW, "--results", results, "--out", file) == ""
    text = file.read_text()
    assert "96.07" in text
    assert "advbench train pgd-at" in text
    assert said("paper", "show", "trades", "--out", file) == ""
    assert "advbench train" not in file.read_text()
    assert "56.61" in file.read_text()


def test_commands_stand_in_a_block_of_code_in_markdown(said, results):
    text = said("report", *ROW, "-f", "md", "--results", results)
    assert re.search(r"\n```sh\n\[1\] advbench train .*\n +advbench eval .*\n```\n$", text)


@pytest.mark.parametrize("name", ["trades", "awp", "rst"])
def test_tables_fit_on_a_screen_of_120_columns_and_commands_stay_whole(name, results):
    shown = on_a_terminal(120, "report", "--paper", name, "--results", results)
    head, _, listing = shown.partition("\n[1] ")
    assert max(map(len, head.splitlines())) <= 120
    assert "…" not in shown
    assert all(re.match(r"(\[\d+\]| +)? ?advbench ", line) for line in listing.splitlines())
    on_screen = [re.sub(r"^(\[\d+\]| +) ?", "", line) for line in listing.splitlines()]
    assert all(shlex.split(line)[0] == "advbench" for line in on_screen)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["paper", "show", "tradse"], "unknown paper 'tradse'; did you mean 'trades'?"),
        (["report", "--paper", "awpp"], "unknown paper 'awpp'; did you mean 'awp'?"),
        (["paper", "show", "trades", "--table", "9"],
         "paper 'trades' has no table '9'; known: 4, 5, 6, 7"),
        (["paper", "show", "rst", "--table", "Fig 2"],
         "paper 'rst' has no table 'Fig 2'; did you mean 'Fig.2'?"),
        (["report", "--paper", "trades", "--dataset", "cifar"],
         "paper 'trades' has no numbers on 'cifar'; did you mean 'cifar10'?"),
        (["report", "--table", "5"],
         "--table '5' is of a paper: name that, too, e.g. --paper trades"),
        (["report", "--paper", "trades", "--sort", "clean"], "--paper goes without --sort"),
        (["report", "--paper", "trades", "--transfer"], "--paper goes without --transfer"),
        (["report", "--plot", "x", "--paper", "trades"], "--plot goes without --paper"),
        (["paper", "show", "trades", "--format", "htm"],
         "no format 'htm' for the screen; did you mean 'html'?"),
        (["paper", "lst"], "No such command 'lst'. Did you mean 'list'?"),
    ],
)  # fmt: skip
def test_mistakes_cost_one_line(refused, words, message):
    assert refused(*words) == message


def test_tables_are_named_in_any_case(said):
    assert said("paper", "show", "rst", "--table", "fig.2") == said(
        "paper", "show", "rst", "--table", "Fig.2"
    )


def test_alone_it_explains_itself(said):
    out = said("paper")
    assert "Published tables" in out
    assert re.search(r"^  list .*\n  show ", out, re.MULTILINE)


def test_the_shell_completes_names_and_aliases():
    offered = dict(completion.papers("r"))
    assert {"rst", "rice", "robust-overfitting", "rslad"} <= {*offered}
    assert offered["rice"] == "Overfitting in adversarially robust deep learning"


# What else is in results/ may lack a setting that came later: torch knows its default.
COMMITTED = ["--results", "results/reference/at-family-digits"]


@pytest.mark.parametrize(
    "words",
    [["paper", "list"], ["paper", "show", "awp"], ["report", "--paper", "awp", *COMMITTED]],
)
def test_papers_do_not_need_torch(words, without_torch):
    done = without_torch(*words)
    assert done.returncode == 0, done.stderr


def test_show_may_be_left_out(said, refused):
    assert said("paper", "RST", "--table", "1") == said("paper", "show", "rst", "--table", "1")
    assert said("paper", "robustbench", "-f", "csv") == said(
        "paper", "show", "robustbench", "-f", "csv"
    )
    assert "did you mean 'robustbench'?" in refused("paper", "robustbnech")
    assert refused("paper", "--tabel", "1").startswith("No such option")
