"""Which numbers of a column are best, by paired tests on the same images."""

from dataclasses import replace

import numpy as np
import pytest

from robustbench_cli.report.example_files import ExampleFiles
from robustbench_cli.report.robustness_table import rows
from robustbench_cli.report.standings import standings

PGD = {"name": "pgd", "steps": 20}
FGSM = {"name": "fgsm", "steps": 1}


def first(count, n=100):
    """Right about the first ``count`` of n images."""
    return (np.arange(n) < count) * 1.0


@pytest.fixture
def table(trained, judged, tmp_path):
    """Make the rows of some recipes, one seed each: name -> (clean, attacks, changes)."""

    def make(**recipes):
        runs = {}
        for name, (clean, attacks, changes) in recipes.items():
            parent = trained(name)
            run = judged(tmp_path, parent, clean, attacks, **changes)
            runs |= {tmp_path / parent.id: parent, tmp_path / run.id: run}
        return rows([*runs.values()], files=ExampleFiles.of_runs(runs))

    return make


def test_the_best_alone_and_ties(table):
    found = table(
        a=(first(99), {"pgd20": (PGD, first(60))}, {}),
        b=(first(98), {"pgd20": (PGD, first(40))}, {}),
        c=(first(80), {"pgd20": (PGD, first(54))}, {}),
    )
    best = standings(found, ["clean", "pgd20"])
    assert best.alone == {(0, "pgd20")}
    assert best.tied == {(0, "clean"), (1, "clean")}
    assert not best.untested


def test_only_rows_of_one_setting_are_compared(table):
    found = table(
        a=(first(90), {"pgd20": (PGD, first(60))}, {}),
        b=(first(70), {"pgd20": (PGD, first(40))}, {}),
        c=(first(99), {"pgd20": (PGD, first(99))}, {"eps": 0.1}),
        d=(first(49, 50), {"pgd20": (PGD, first(48, 50))}, {}),
    )
    places = [row.facts["defense"].text for row in found]
    best = standings(found, ["clean", "pgd20"])
    assert best.alone == {(places.index("a"), "clean"), (places.index("a"), "pgd20")}
    assert not best.tied


def test_the_worst_case_is_compared_under_the_same_attacks_only(table):
    both = {"pgd20": (PGD, first(60)), "fgsm": (FGSM, first(65))}
    weak = {"fgsm": (FGSM, first(90))}
    found = table(a=(first(95), both, {}), b=(first(95), weak, {}))
    best = standings(found, ["fgsm", "worst"])
    assert best.alone == {(1, "fgsm")}
    assert "same attacks" in best.untested["worst"]
    found = table(c=(first(95), both, {}), d=(first(95), both | weak, {}))
    assert (1, "worst") in standings(found, ["worst"]).tied


def test_verdicts_about_other_labels_are_not_compared(table):
    labels = np.arange(100)[::-1] % 10
    found = table(
        a=(first(90), {"pgd20": (PGD, first(60))}, {}),
        b=(first(70), {"pgd20": (PGD, first(40))}, {"labels": labels}),
    )
    best = standings(found, ["pgd20"])
    assert not best.alone | best.tied
    assert "hold other labels" in best.untested["pgd20"]


def test_a_randomised_model_is_compared_by_its_shares(table):
    draw = np.random.default_rng(0)
    shares = np.where(first(70) > 0, draw.choice([0.75, 1.0], 100), draw.choice([0, 0.25], 100))
    found = table(
        a=(first(100), {"pgd20": (PGD, shares)}, {}),
        b=(first(100), {"pgd20": (PGD, first(40))}, {}),
        c=(first(100), {"pgd20": (PGD, first(66))}, {}),
    )
    best = standings(found, ["pgd20"])
    assert best.tied == {(0, "pgd20"), (2, "pgd20")}


def test_what_the_last_epochs_lost_is_compared_image_by_image(trained, judged, tmp_path):
    """One recipe loses ten images from its best epoch to its last, the other none."""
    runs = {}
    for name, late in (("a", 60), ("b", 50)):
        parent = trained(name, rule="best")
        kept = replace(parent.checkpoint, sha256=f"last {name}", rule="last")
        parent = replace(parent, last=kept)
        runs[tmp_path / parent.id] = parent
        for checkpoint, right in ((parent.checkpoint, 60), (kept, late)):
            more = {"weights": checkpoint.sha256, "evaluated": checkpoint}
            run = judged(tmp_path, parent, first(90), {"pgd20": (PGD, first(right))}, **more)
            runs[tmp_path / run.id] = run
    found = rows([*runs.values()], files=ExampleFiles.of_runs(runs))
    best = standings(found, ["pgd20", "pgd20 last", "pgd20 diff"])
    assert best.alone == {(0, "pgd20 last"), (0, "pgd20 diff")}
    assert best.tied == {(0, "pgd20"), (1, "pgd20")}
