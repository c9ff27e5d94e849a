"""What a table says of certificates."""

from dataclasses import replace

import pytest

from robustbench_cli.report.robustness_table import rows
from robustbench_cli.runs.outcomes import Proof, Within

QUARTER = {"name": "smoothing", "sigma": 0.25, "n": 100}
FGSM = {"name": "fgsm", "steps": 1}


def proof(params, correct, *within, n=100):
    """A certificate's record: of 100 examples, so many right, and certified within each ball."""
    balls = [
        Within(norm=norm, eps=eps, radius=eps, correct=right, accuracy=right / n)
        for norm, eps, right in within
    ]
    return Proof(
        params=params,
        norm="L2",
        n=n,
        correct=correct,
        accuracy=correct / n,
        abstained=0.0,
        uncertified=0.0,
        mean_radius=0.1,
        within=balls,
        forwards=1,
        seconds=1.0,
    )


@pytest.fixture
def certified(evaluated):
    """A maker of evaluations under certificates and no attack."""

    def make(parent, *proofs, attacks=(), **more):
        certificates = {f"c{i}": each for i, each in enumerate(proofs)}
        return evaluated(parent, dict(attacks), certificates=certificates, **{"worst": 90, **more})

    return make


def right(row):
    return {name: cell.correct for name, cell in row.cells.items() if cell}


def test_a_certificate_adds_columns_to_the_row_of_its_model(trained, evaluated, certified):
    parent, other = trained(), trained("mart")
    runs = [
        parent,
        other,
        evaluated(parent, {"fgsm": (FGSM, 60)}),
        certified(parent, proof(QUARTER, 80, ("L2", 0.25, 50), ("Linf", 2 / 255, 40))),
        evaluated(other, {"fgsm": (FGSM, 61)}),
    ]
    first, second = rows(runs)
    names = ["smoothing", "certified@L2=0.25", "certified@Linf=2/255"]
    assert list(first.cells) == ["clean", "fgsm", *names, "worst", "minutes"]
    # The certified examples are no bound on what attacks leave, nor is the clean accuracy.
    assert right(first)["worst"] == (60,)
    assert [right(first)[name] for name in names] == [(80,), (50,), (40,)]
    assert [second.cells[name] for name in names] == [None] * 3


def test_without_an_attack_there_is_no_worst_case(trained, certified):
    parent = trained()
    (row,) = rows([parent, certified(parent, proof(QUARTER, 80))])
    assert right(row) == {"clean": (90,), "smoothing": (80,)}


def test_certificates_are_told_apart_by_what_differs(trained, certified):
    parent = trained()
    half = QUARTER | {"sigma": 0.5}
    both = certified(parent, proof(QUARTER, 80, ("L2", 0.5, 30)), proof(half, 70, ("L2", 0.5, 45)))
    (row,) = rows([parent, both])
    assert right(row) == {
        "clean": (90,),
        "smoothing:sigma=0.25": (80,),
        "certified:sigma=0.25@L2=0.5": (30,),
        "smoothing:sigma=0.5": (70,),
        "certified:sigma=0.5@L2=0.5": (45,),
    }


def test_certificates_of_one_ball_are_told_apart_by_name(trained, certified):
    parent = trained()
    bounds = {"name": "bounds", "tests": 8}
    balls = ("L2", 0.5, 30), ("L2", 0.25, 40)
    both = certified(parent, proof(QUARTER, 80, *balls), proof(bounds, 90, ("L2", 0.5, 20)))
    (row,) = rows([parent, both])
    assert right(row) == {
        "clean": (90,),
        "smoothing": (80,),
        "certified:smoothing@L2=0.5": (30,),
        "certified@L2=0.25": (40,),
        "bounds": (90,),
        "certified:bounds@L2=0.5": (20,),
    }


def test_seeds_are_joined_and_of_a_repeated_certificate_the_latest_counts(trained, certified):
    first, second = trained(seed=0), trained(seed=1)
    runs = [
        first,
        second,
        certified(first, proof(QUARTER, 1, ("L2", 0.25, 1))),
        certified(first, proof(QUARTER, 80, ("L2", 0.25, 50))),
        certified(second, proof(QUARTER, 84, ("L2", 0.25, 54))),
    ]
    (row,) = rows(runs)
    assert row.cells["smoothing"].text == "82.00 ± 2.83"
    assert row.cells["certified@L2=0.25"].correct == (50, 54)


def test_kinds_of_certificates_are_told_apart(trained, certified):
    parent = trained()
    ibp, crown = ({"name": name, "tests": 8} for name in ("ibp", "crown"))
    both = certified(parent, proof(ibp, 90, ("Linf", 0.1, 3)), proof(crown, 90, ("Linf", 0.1, 30)))
    (row,) = rows([parent, both])
    assert right(row) == {
        "clean": (90,),
        "ibp": (90,),
        "certified:ibp@Linf=0.1": (3,),
        "crown": (90,),
        "certified:crown@Linf=0.1": (30,),
    }


def test_a_certificate_that_proves_nothing_says_nothing(trained, certified):
    parent = trained()
    silent = replace(proof({"name": "ibp"}, 90, ("Linf", 0.1, 0)), says_nothing=True)
    (row,) = rows([parent, certified(parent, silent)])
    assert row.cells["ibp"].text == "90.00"
    cell = row.cells["certified@Linf=0.1"]
    assert cell.text == "says nothing"
    assert not cell.competes
    assert cell.raw["certified@Linf=0.1"] is None
    assert cell.raw["certified@Linf=0.1_trust"] == "says nothing"
    # A plain 0 % stays one: something else was proven at another radius.
    (plain,) = rows([parent, certified(parent, proof({"name": "ibp"}, 90, ("Linf", 0.1, 0)))])
    assert plain.cells["certified@Linf=0.1"].text == "0.00"


def test_an_attack_of_the_same_name_keeps_its_column(trained, certified):
    parent = trained()
    odd = certified(parent, proof(QUARTER, 80), attacks={"smoothing": (FGSM, 60)}, worst=60)
    (row,) = rows([parent, odd])
    assert right(row) == {"clean": (90,), "smoothing": (60,), "smoothing'": (80,), "worst": (60,)}
