"""Presets and rows of papers: a preset stands for a row, and its run can fill that row's cells."""

from collections import defaultdict

import pytest

from robustbench_cli import papers
from robustbench_cli.commands.training_task import training_task
from robustbench_cli.config import presets
from robustbench_cli.config.schema import as_recorded
from robustbench_cli.papers import differences
from robustbench_cli.papers.reading import load_paper

ROWLESS = {
    "mart-resnet-18": "the tables of MART's own paper are not here",
    "mart-wrn-34-10": "the tables of MART's own paper are not here",
    "mter-readme-mnist": "the MNIST tables of MTER could not be read",
    "ablation-cifar10": "the paper's numbers on CIFAR-10 could not be read",
    "ablation-mnist-mean": "the paper's numbers of the encoding by means could not be read",
    "bands-mnist": "the paper's numbers on MNIST could not be read",
    "mter-readme-mnist-finetuned": "the MNIST tables of MTER could not be read",
    "pgd-at-mnist-short": "no paper's scale",
    "port-digits-short": "no paper's scale",
    "pretraining-table1-pretrain": "the first stage of rst-table1-pretraining",
    "rst-table1-labeller": "the first stage of rst-table1-cifar10",
    "robust-dml-hm-mnist": "HM's tables are of CUB, CARS and SOP",
    "robust-dml-hm-mnist-short": "no paper's scale",
    "robust-dml-one-role-mnist": "the tables of Panum et al. are not here",
    "robust-dml-one-role-mnist-short": "no paper's scale",
    "robust-dml-robrank-act-mnist": "robrank leaves its table of MNIST empty",
    "robust-dml-robrank-act-mnist-short": "no paper's scale",
    "robust-dml-robrank-est-mnist": "robrank leaves its table of MNIST empty",
    "robust-dml-robrank-est-mnist-short": "no paper's scale",
    "robust-dml-robrank-none-mnist": "robrank leaves its table of MNIST empty",
    "robust-dml-robrank-none-mnist-short": "no paper's scale",
    "speedrun-mnist": "no paper's scale",
    "speedrun-cifar10-jpeg": "no paper's scale",
    "standard-mnist": "no paper's number: what attacks must break",
    "trades-mnist-short": "no paper's scale",
    "vat-cifar10-preact-resnet-18": "the tables of VAT's paper are not here",
}
"""Presets that no row of a paper is trained with, and why."""


def rows():
    """The numbers that each preset is named for, with what they mean."""
    found = defaultdict(list)
    for paper in map(load_paper, papers.paper_names()):
        for cell in paper.cells:
            meaning = paper.meaning(cell)
            found[meaning.preset].append((cell, meaning))
    return found


ROWS = rows()
NAMED = sorted({*ROWS} & {*presets.preset_names()})


def test_every_preset_is_of_a_row_or_said_to_be_of_none():
    assert {*presets.preset_names()} - {*ROWS} == {*ROWLESS}


@pytest.mark.usefixtures("scanned_once")
@pytest.mark.parametrize("name", NAMED)
def test_a_run_of_a_preset_can_stand_beside_a_row_of_it(name, trained, asking):
    config = as_recorded(training_task(asking(name)).configure(asking(name), []))
    run = trained(data=config["dataset"]["name"], **config)
    fits = [
        differences.method(meaning.defense, run) == []
        and differences.training_differences(cell, meaning, run) is not None
        for cell, meaning in ROWS[name]
    ]
    assert any(fits)


@pytest.mark.usefixtures("scanned_once")
@pytest.mark.parametrize("name", NAMED)
def test_the_command_of_a_row_has_what_its_preset_needs(name):
    needed = {f"--{option}" for option in presets.needs(name)}
    for _, meaning in ROWS[name]:
        assert needed == {*meaning.options} & {f"--{option}" for option in presets.REQUIRED_OPTIONS}
