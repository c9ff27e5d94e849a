"""Evaluations behind input defenses: rows of their own, and none of a paper's."""

from dataclasses import replace

import pytest

from robustbench_cli.papers.compare import measured_accuracies
from robustbench_cli.report.outcome_data import outcome_data
from robustbench_cli.report.robustness_table import rows
from robustbench_cli.report.transfer_matrix import transfer_matrices

ATTACK = {"pgd20": ({"name": "pgd", "steps": 20}, 40)}


@pytest.fixture
def runs(trained, evaluated):
    """A training run, its evaluation, and two behind defenses of one name."""
    made = trained("standard")

    def behind(window, **more):
        run = evaluated(made, ATTACK, clean=80, **more)
        defend = {"lgs": {"name": "lgs", "window": window}}
        config = {**run.config, "defend": defend}
        return replace(run, config=config, weights=f"{run.weights}+{window}")

    return [made, evaluated(made, ATTACK), behind(15), behind(7), behind(15, source=made)]


def test_each_has_a_row_of_its_own(runs):
    found = rows(runs)
    assert len(found) == 3
    names = [row.facts["defense"].text for row in found]
    assert names[0] == "standard"
    assert all(name.startswith("standard behind lgs") for name in names[1:])
    assert len({*names}) == 3  # told apart
    assert [row.cells["clean"].text for row in found] == ["90.00", "80.00", "80.00"]


def test_no_paper_has_such_a_model(runs):
    measured = [each for each in measured_accuracies(runs) if each.params]
    assert [each.run.id for each in measured] == [runs[1].id]


def test_images_moved_to_the_defended_model_are_those_of_another_model(runs):
    (matrix,) = transfer_matrices(runs)
    assert [*matrix.names.values()] == ["standard", "standard behind lgs"]
    assert len(matrix.targets) == 2


def test_scripts_are_told_of_the_defenses(runs):
    assert "defend" not in outcome_data(runs[1])
    assert outcome_data(runs[2])["defend"] == ["lgs"]
