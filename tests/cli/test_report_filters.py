"""``advbench report``: filters by run, defense, data, attack and date, and the order of rows."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from robustbench_cli.cli import main
from robustbench_cli.core.errors import UserError
from robustbench_cli.report.selection import first_moment, last_moment

PGD = {"name": "pgd", "steps": 20}
FGSM = {"name": "fgsm"}
NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
ROWS = {
    # defense: attacks, data, days after the first
    "trades": ({"pgd20": (PGD, 50), "fgsm": (FGSM, 60)}, "mnist", 0),
    "trades+awp": ({"pgd20": (PGD, 52)}, "mnist", 1),
    "pgd-at": ({"fgsm": (FGSM, 61)}, "mnist", 2),
    "mart": ({"pgd20": (PGD, 40)}, "digits", 3),
}


@pytest.fixture
def results(tmp_path, trained, evaluated, kept):
    folder = tmp_path / "results"
    for defense, (attacks, data, days) in ROWS.items():
        parent = trained(defense, id=f"{defense}-run", data=data)
        made = {"created": NOON + timedelta(days=days)}
        kept(folder, parent, evaluated(parent, attacks, id=f"eval-{days}", **made))
    return folder


@pytest.fixture
def rows(results, capsys):
    def names(*words):
        assert main(["report", "--results", str(results), "--json", *words]) == 0
        return [row["defense"] for row in json.loads(capsys.readouterr().out)]

    return names


@pytest.fixture
def refused(results, capsys):
    def run(*words):
        assert main(["report", "--results", str(results), *words]) == 2
        return capsys.readouterr().err.removeprefix("advbench: ").strip()

    return run


def test_rows_stand_in_the_order_of_data_threat_and_name(rows):
    assert rows() == ["mart", "pgd-at", "trades", "trades+awp"]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--defense", "trades"], ["trades"]),
        (["--defense", "TRADES*"], ["trades", "trades+awp"]),
        (["--defense", "*awp", "--defense", "mart"], ["mart", "trades+awp"]),
        (["--dataset", "digits"], ["mart"]),
        (["--attack", "fgsm"], ["pgd-at", "trades"]),
        (["--run", "trades-run"], ["trades"]),
        (["--run", "eval-3", "--run", "eval-2"], ["mart", "pgd-at"]),
        (["--since", "2026-03-12"], ["mart", "pgd-at"]),
        (["--until", "2026-03-10"], ["trades"]),
        (["--since", "2026-03-11", "--until", "2026-03-12"], ["pgd-at", "trades+awp"]),
        (
            ["--since", "2026-03", "--until", "2026-03", "--attack", "pgd*", "--dataset", "mnist"],
            ["trades", "trades+awp"],
        ),
    ],
)
def test_each_filter_leaves_its_rows(rows, words, names):
    assert rows(*words) == names


def test_the_attack_that_was_named_has_its_column_and_clean_has_one(results, capsys):
    words = ["report", "--results", str(results), "-f", "md", "--attack", "fgsm"]
    assert main(words) == 0
    head = capsys.readouterr().out.splitlines()[0]
    assert head.endswith("| clean | fgsm |")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--defense", "trdaes"],
            "--defense 'trdaes': there is no such row; did you mean",
        ),
        (["--attack", "pgd2"], "--attack 'pgd2': there is no such row; did you mean 'pgd20'"),
        (["--run", "trades-rnu"], "--run 'trades-rnu': no evaluation of such a run; did you mean"),
        (["--since", "yesterday"], "--since 'yesterday': give a day, as 2026-11-01, or a month"),
        (["--since", "2026-04-01"], "no evaluation between --since and --until"),
        (["--joint", "--defense", "trades"], "--joint goes without --defense"),
        (["--json", "--format", "md"], "--json is --format json"),
    ],
)
def test_a_filter_that_fits_nothing_says_so(refused, words, message):
    assert refused(*words).startswith(message)


def test_a_day_ends_when_the_next_begins():
    assert last_moment("--until", "2026-02-28") == first_moment("--since", "2026-03-01")
    assert last_moment("--until", "2026-12") == first_moment("--since", "2027-01-01")
    with pytest.raises(UserError):
        first_moment("--since", "2026-02-30")
