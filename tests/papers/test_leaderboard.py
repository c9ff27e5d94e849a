"""Leaderboards: what ships with the package, and the place of one's own models in them."""

import json
import shutil
from decimal import Decimal
from pathlib import Path

import pytest

from robustbench_cli import papers
from robustbench_cli.cli import completion, main
from robustbench_cli.core.errors import UserError
from robustbench_cli.papers.leaderboard import find_board, load_board
from robustbench_cli.report.statistics import wilson
from robustbench_cli.runs.trust import Finding

ROOT = Path(__file__).parents[2]
BOARDS = {name: load_board(name) for name in papers.paper_names(papers.BOARDS)}
each_board = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
AUTOATTACK = {"name": "autoattack", "version": "standard"}


@each_board
def test_every_entry_is_whole_and_in_one_place(board):
    places = [(entry.table, entry.name) for entry in board.entries]
    assert len(places) == len({*places})
    assert {entry.table for entry in board.entries} == {*board.tables}
    for entry in board.entries:
        about = board.tables[entry.table]
        assert 0 <= entry.best_known <= entry.robust <= 100
        assert entry.robust < entry.clean <= 100
        assert entry.norm == about.norm
        assert bool(entry.eps) == bool(about.eps)
        assert about.eps is None or abs(entry.eps - about.eps) < 0.02 * about.eps
        assert entry.title
        assert entry.architecture
    assert board.citation


def test_robustbench_is_there_with_the_numbers_of_its_files():
    board = BOARDS["robustbench"]
    counts = {name: len(entries) for name, entries in board.only(None).items()}
    assert counts == {
        "CIFAR-10 Linf": 99,
        "CIFAR-10 L2": 21,
        "CIFAR-100 Linf": 38,
        "ImageNet Linf": 30,
        "CIFAR-10 corruptions": 23,
        "CIFAR-100 corruptions": 13,
        "ImageNet corruptions": 12,
    }
    first, second, *_, last = board.only("cifar-10 linf")["CIFAR-10 Linf"]
    assert (first.name, first.robust) == ("Bartoldson2024Adversarial_WRN-94-16", Decimal("73.71"))
    # Ranked by what a stronger evaluation has left, not by AutoAttack's higher number.
    assert (second.robust, second.external) == (Decimal("75.28"), Decimal("73.10"))
    assert last.best_known == Decimal("0.00")
    flagged = {entry.name for entry in board.entries if entry.unreliable}
    assert flagged == {"Kang2021Stable", "Xiao2020Enhancing"}


def test_a_table_or_a_board_that_is_not_there():
    with pytest.raises(UserError, match="has no table 'CIFAR-10 L3'; did you mean 'CIFAR-10 L2'"):
        BOARDS["robustbench"].only("CIFAR-10 L3")
    assert find_board("trades") is None
    with pytest.raises(UserError, match="did you mean 'robustbench'"):
        papers.find_paper("robustbnech")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("93.68", "high", r"line 2 is damaged: clean: "),
        (",93.68,", ",", r"line 2 is damaged: it must have 12 values"),
        ("table,name", "name,table", r"is damaged: its first line must be table,name,"),
        ("CIFAR-10 Linf,Bart", "CIFAR-11,Bart", r"line 2 is damaged: no table 'CIFAR-11'"),
        (",WRN-82-8,Linf,8/255,,", ",WRN-82-8,Linf,8/255,maybe,", r"line 4 is damaged: extra"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, old, new, message):
    for ending in ("csv", "toml"):
        shutil.copy(papers.BOARDS / f"robustbench.{ending}", tmp_path)
    text = (tmp_path / "robustbench.csv").read_text()
    (tmp_path / "robustbench.csv").write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        load_board("robustbench", tmp_path)


def test_the_commands_know_it(capsys):
    assert main(["paper", "list"]) == 0
    assert "robustbench" in capsys.readouterr().out
    assert main(["paper", "show", "robustbench", "--table", "CIFAR-10 L2", "-f", "json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert len(entries) == 21
    assert entries[0]["best_known"] == 84.97
    assert ("robustbench", BOARDS["robustbench"].title) in completion.papers("rob")


@pytest.fixture
def placed(tmp_path, kept, trained, evaluated, capsys):
    """Write a model with its evaluation on 1000 images of CIFAR-10; return its places."""

    def run(attacks, *args, code=0, eps=8 / 255, **changes):
        model = trained("trades", id="mine", data="cifar10")
        done = evaluated(model, attacks, n=1000, clean=850, eps=eps, id="mine-eval", **changes)
        kept(tmp_path / "results", model, done)
        options = ["--results", str(tmp_path / "results"), "--paper", "robustbench", *args]
        assert main(["report", *options]) == code
        said = capsys.readouterr()
        return said.err if code else said.out

    return run


def test_a_run_is_placed_with_what_differs(placed):
    (found,) = json.loads(placed({"aa": (AUTOATTACK, 560)}, "--like", "mine", "-f", "json"))
    board = BOARDS["robustbench"].only("CIFAR-10 Linf")["CIFAR-10 Linf"]
    above = sum(entry.best_known > Decimal("56.00") for entry in board)
    assert found["place"] == above + 1
    assert found["place_low"] < found["place"] < found["place_high"]
    assert not found["at_best"]
    assert found["differs"] == "images 1000 (10000)"
    assert "no audit" in found["audit"]
    assert found["runs"] == ["mine-eval"]


def test_our_row_stands_where_it_belongs(placed):
    lines = placed({"aa": (AUTOATTACK, 560)}, "-f", "md").splitlines()
    cells = [line.split(" | ") for line in lines if line.startswith("| ")][1:]
    at = next(place for place, row in enumerate(cells) if "**own**" in row)
    best = [float(row[-1].strip(" |*")) for row in cells if row[0].strip("| *:-")]
    assert best == sorted(best, reverse=True)
    assert 0 < at < len(cells) - 1


def test_a_weaker_attack_and_an_upper_bound_give_a_place_at_best(placed):
    (found,) = json.loads(placed({"pgd20": ({"name": "pgd"}, 700)}, "-f", "json"))
    assert found["at_best"]
    assert "attack pgd20 (autoattack standard)" in found["differs"]


def test_a_number_that_means_nothing_has_no_place(placed):
    finding = Finding(check="neighbours", severity="error", message="batches", clean=True)
    nothing = {"clean_trust": "withheld", "worst_case_trust": "withheld", "findings": [finding]}
    said = placed({"aa": (AUTOATTACK, 560, {"trust": "withheld"})}, **nothing)
    assert "no place: the number is withheld" in said
    assert "56.0" not in said.partition("RobustBench")[0]
    (own,) = [line for line in said.splitlines() if " own " in line]
    assert "withheld" in own
    assert "56.00" not in own


def test_another_threat_or_run_is_refused_in_one_line(placed):
    said = placed({"aa": (AUTOATTACK, 560)}, eps=2 / 255, code=2)
    assert "no evaluation is on the data and the threat of a table of 'robustbench'" in said
    assert "there is: cifar10, Linf 2/255" in said
    assert said.count("\n") == 1


def test_like_must_name_an_evaluation_and_a_leaderboard(placed, capsys):
    said = placed({"aa": (AUTOATTACK, 560)}, "--like", "mien", code=2)
    assert said == "advbench: --like 'mien': no evaluation of such a run; did you mean 'mine'?\n"
    assert main(["report", "--like", "x"]) == 2
    assert "goes with --paper robustbench" in capsys.readouterr().err


def _rows(said):
    """The cells of a Markdown table, without its head; what is bold is written plainly."""
    lines = [line for line in said.splitlines() if line.startswith("| ")][2:]
    return [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines]


def test_what_a_model_is_tied_with_is_named(placed):
    board = BOARDS["robustbench"].only("CIFAR-10 Linf")["CIFAR-10 Linf"]
    numbers = [entry.best_known for entry in board]
    single = next(x for x in numbers if numbers.count(x) == 1 and x % Decimal("0.1") == 0)
    place, count = 1 + sum(x > single for x in numbers), int(10 * single)
    (found,) = json.loads(placed({"aa": (AUTOATTACK, count)}, "-f", "json"))
    (same,) = (entry.name for entry in board if entry.best_known == single)
    assert (found["place"], found["tied_with"]) == (place, same)


def test_ties_are_marked_in_the_table(placed):
    board = BOARDS["robustbench"].only("CIFAR-10 Linf")["CIFAR-10 Linf"]
    numbers = [entry.best_known for entry in board]
    single = next(x for x in numbers if numbers.count(x) == 1 and x % Decimal("0.1") == 0)
    place = 1 + sum(x > single for x in numbers)
    said = placed({"aa": (AUTOATTACK, int(10 * single))}, "-f", "md")
    rows = _rows(said)
    (own,) = [row for row in rows if row[2] == "own"]
    alike = [row for row in rows if row[-1] == str(single) and row is not own]
    assert [row[0] for row in alike] == [f"{place}="]
    assert own[0].startswith(f"({place}=)")
    assert f"with the same number as {alike[0][1]}" in said
    # Entries that share a number among themselves are marked, all others are not.
    for row in rows:
        if row is not own and row[-1] != str(single):
            assert row[0].endswith("=") == (numbers.count(Decimal(row[-1])) > 1)


def test_a_place_has_the_interval_of_wilson(placed):
    low, high = wilson(560, 1000)
    board = BOARDS["robustbench"].only("CIFAR-10 Linf")["CIFAR-10 Linf"]
    best, worst = (1 + sum(float(e.best_known) > 100 * end for e in board) for end in (high, low))
    (own,) = [r for r in _rows(placed({"aa": (AUTOATTACK, 560)}, "-f", "md")) if r[2] == "own"]
    place = 1 + sum(entry.best_known > 56 for entry in board)
    assert own[0] == f"({place}) [{best}-{worst}]"


def test_below_an_upper_bound_there_is_no_worst_place(placed):
    found = placed({"pgd20": ({"name": "pgd"}, 560)}, "-f", "json")
    (raw,) = json.loads(found)
    assert raw["place_low"] < raw["place"]
    assert raw["place_high"] is None


@pytest.mark.parametrize(
    ("status", "kind", "like", "message"),
    [
        (
            *("ok", "attack", "mine"),
            "'mine' has no finished evaluation; make one: "
            "advbench eval --attack autoattack --run mine",
        ),
        ("started", "eval", "mine-eval", "'mine-eval' is not finished; to go on: advbench eval"),
        (
            *("ok", "attack", "mine-eval"),
            "'mine-eval' is a run of advbench attack, and an evaluation is needed; make one: "
            "advbench eval --attack autoattack --run mine",
        ),
    ],
)
def test_a_run_without_an_evaluation_is_told_how_to_get_one(placed, status, kind, like, message):
    other = {"status": status, "kind": kind}
    said = placed({"aa": (AUTOATTACK, 560)}, "--like", like, code=2, **other)
    assert said == f"advbench: --like {like!r}: {message}\n"


def test_a_part_of_several_names_lists_them(placed):
    said = placed({"aa": (AUTOATTACK, 560)}, "--like", "min", code=2, kind="attack")
    assert said.endswith("no evaluation of such a run; it is a part of mine, mine-eval\n")


def test_the_name_of_a_model_cannot_break_the_table(placed):
    said = placed({"aa": (AUTOATTACK, 560)}, "-f", "latex", subject="a_b", parent=None)
    assert r"\textbf{a\_b}" in said
