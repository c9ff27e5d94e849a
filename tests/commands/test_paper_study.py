"""A paper's numbers as a study: each is made or left out, and every command can be given."""

import shlex

import pytest

from robustbench_cli.commands.paper_study import paper_study, study_of
from robustbench_cli.commands.study_jobs import SharedOptions, study_jobs
from robustbench_cli.commands.training_estimate import configured
from robustbench_cli.papers import paper_names
from robustbench_cli.papers.choice import chosen_cells
from robustbench_cli.papers.howto import Known
from robustbench_cli.papers.reading import load_paper

PAPERS = paper_names()


@pytest.fixture(scope="module")
def known():
    return Known.scan()


@pytest.mark.parametrize("name", PAPERS)
def test_every_number_is_made_once_or_left_out_with_a_reason(name, known):
    paper = load_paper(name)
    plan = paper_study(paper, paper.cells, known)
    made = [cell.place for model in plan.models for cell in model.cells]
    left = [cell.place for cells in plan.left_out.values() for cell in cells]
    assert sorted(map(str, made + left)) == sorted(str(cell.place) for cell in paper.cells)
    assert all(plan.left_out)
    names = [model.name for model in plan.models]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", PAPERS)
def test_a_name_stands_for_the_same_commands_whichever_table_is_chosen(name, known):
    paper, made = load_paper(name), {}
    for table in (None, *paper.tables):
        for model in paper_study(paper, chosen_cells(paper, table, None), known).models:
            for step, words in model.steps.items():
                assert made.setdefault(step, words) == words, table


@pytest.mark.parametrize("name", PAPERS)
def test_every_training_has_a_configuration_on_the_paper_s_data(name, known):
    paper = load_paper(name)
    for model in paper_study(paper, paper.cells, known).models:
        _, config = configured(model.train)
        assert config.dataset["name"] == model.dataset, model.name


def test_a_model_is_trained_once_and_all_its_numbers_follow(known):
    paper = load_paper("gce")
    plan = paper_study(paper, paper.cells, known)
    assert [len(model.cells) for model in plan.models] == [3, 3]
    assert not plan.left_out
    (model, _) = plan.models
    common = {"--out": "results/x", "--data-dir": "data", "--device": "cpu"}
    shared = SharedOptions(
        common=common, takes=lambda words: {"--seed", "--name", "--dataset", *common, "--resume"}
    )
    first, second = study_jobs(study_of([model], [4]), "mnist", shared)
    (train,), (measure,) = first.commands, second.commands
    assert train.words[:4] == ("train", "standard", "--preset", "gce-readme-ce-mnist")
    assert train.again[:3] == ("train", "--resume", train.folder)
    assert first.id in second.after
    said = shlex.join(measure.words)
    assert f"--run {train.folder}" in said
    assert all(attack in said for attack in ("fgsm", "mim", "pgd40:step=1/20"))


def test_what_builds_on_another_run_or_model_is_left_out(known):
    rslad, trades = load_paper("rslad"), load_paper("trades")
    reasons = paper_study(rslad, rslad.cells, known).left_out
    assert any("builds on another run" in why for why in reasons)
    reasons = paper_study(trades, trades.cells, known).left_out
    assert any("crafted on another model" in why for why in reasons)
