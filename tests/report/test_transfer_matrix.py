"""Who breaks whom: which evaluations are put into one matrix."""

from dataclasses import replace

import pytest

from robustbench_cli.report.statistics import wilson
from robustbench_cli.report.transfer_matrix import transfer_matrices

PGD20 = {"name": "pgd", "steps": 20, "last_iterate": False}
FGSM = {"name": "fgsm", "steps": 1, "last_iterate": False}


@pytest.fixture
def runs(trained, evaluated):
    """Two models tried on each other's images, a third one on nobody's."""
    one, two, three = (trained(name, id=name) for name in ("standard", "trades", "mart"))
    return [
        *(one, two, three),
        evaluated(one, {"pgd20": (PGD20, 10)}, clean=95),
        evaluated(two, {"pgd20": (PGD20, 50), "fgsm": (FGSM, 60)}, clean=90),
        evaluated(three, {"pgd20": (PGD20, 55)}, clean=85),
        evaluated(one, {"pgd20": (PGD20, 30)}, clean=95, source=two),
        evaluated(two, {"pgd20": (PGD20, 70)}, clean=90, source=one, id="moved"),
    ]


def read(matrix):
    """Source and target by name -> right answers."""
    names = matrix.names
    return {(names[a], names[b]): cell.correct[0] for (a, b), cell in matrix.cells.items()}


def test_sources_and_targets_with_the_white_box_on_the_diagonal(runs):
    (matrix,) = transfer_matrices(runs)
    assert (matrix.attack, matrix.title) == ("pgd20", "pgd20: mnist, Linf 0.3, n 100")
    assert [matrix.names[model] for model in matrix.sources] == ["standard", "trades"]
    assert [matrix.names[model] for model in matrix.targets] == ["standard", "trades"]
    assert read(matrix) == {
        ("standard", "standard"): 10,
        ("standard", "trades"): 70,
        ("trades", "standard"): 30,
        ("trades", "trades"): 50,
    }
    assert [matrix.clean[model].correct for model in matrix.targets] == [(95,), (90,)]
    assert matrix.runs[runs[0].checkpoint.sha256, runs[1].checkpoint.sha256] == "moved"


def test_the_latest_of_a_repeated_evaluation_counts(runs, evaluated):
    again = evaluated(runs[1], {"pgd20": (PGD20, 71)}, source=runs[0])
    (matrix,) = transfer_matrices([*runs, again])
    assert read(matrix)["standard", "trades"] == 71


@pytest.mark.parametrize("changes", [{"n": 50}, {"eps": 0.1}, {"sha": "other"}, {"norm": "L2"}])
def test_other_settings_are_another_matrix_without_these_white_boxes(runs, evaluated, changes):
    other = evaluated(runs[1], {"pgd20": (PGD20, 20)}, clean=40, source=runs[0], **changes)
    found = transfer_matrices([*runs, other])
    assert sorted(len(matrix.cells) for matrix in found) == [1, 4]


def test_another_attack_is_another_matrix_that_says_so(runs, evaluated):
    shorter = PGD20 | {"steps": 5}
    other = evaluated(runs[1], {"pgd20": (shorter, 80), "fgsm": (FGSM, 75)}, source=runs[0])
    found = {matrix.attack: read(matrix) for matrix in transfer_matrices([*runs, other])}
    assert {*found} == {"pgd20:steps=20", "pgd20:steps=5", "fgsm"}
    assert found["pgd20:steps=5"] == {("standard", "trades"): 80}
    assert found["fgsm"] == {("standard", "trades"): 75, ("trades", "trades"): 60}


def test_a_sweep_is_in_no_matrix(runs, evaluated):
    points = {"pgd20@eps=0.1": (PGD20, 80, {"eps": 0.1})}
    sweep = evaluated(runs[1], points, source=runs[0], sweep={"eps": [0.1]})
    assert len(transfer_matrices([*runs, sweep])) == 1
    assert transfer_matrices([*runs[:3], sweep]) == []


def test_a_model_counts_as_it_was_trained(trained, evaluated):
    he = {"name": "he", "scale": 15.0, "eval_scale": 0.0}
    plain, cosines = trained("standard"), trained("he", defense={"he": he})

    def judged(scale, right, **changes):
        made = evaluated(cosines, {"pgd20": (PGD20, right)}, **changes)
        made.config["defense"] = {"he": he | {"eval_scale": scale}}
        return made

    own, moved = judged(0.0, 50), judged(0.0, 70, source=plain)
    others = [judged(1.0, 60), judged(1.0, 71, source=plain)]
    (matrix,) = transfer_matrices([plain, cosines, own, moved, *others])
    assert read(matrix) == {("he", "he"): 50, ("standard", "he"): 70}
    assert transfer_matrices([plain, cosines, *others]) == []


def test_seeds_are_models_of_their_own(trained, evaluated):
    one, two = trained(seed=0, id="a"), trained(seed=1, id="b")
    moved = evaluated(two, {"pgd20": (PGD20, 60)}, source=one)
    (matrix,) = transfer_matrices([one, two, moved])
    assert read(matrix) == {("trades (seed=0)", "trades (seed=1)"): 60}
    three = trained(seed=1, id="c")
    more = evaluated(three, {"pgd20": (PGD20, 62)}, source=one)
    (matrix,) = transfer_matrices([one, two, three, moved, more])
    assert read(matrix) == {
        ("trades (seed=0)", "trades (run=b)"): 60,
        ("trades (seed=0)", "trades (run=c)"): 62,
    }


def test_a_source_that_was_trained_elsewhere_is_known_by_its_id(trained, evaluated):
    one, two = trained("standard", id="far-away"), trained()
    (matrix,) = transfer_matrices([two, evaluated(two, {"pgd20": (PGD20, 60)}, source=one)])
    assert read(matrix) == {("far-away", "trades"): 60}


def test_intervals_are_of_single_evaluations(runs):
    (matrix,) = transfer_matrices(runs, intervals=True)
    cell = next(iter(matrix.cells.values()))
    assert cell.interval == wilson(10, 100)
    assert cell.text == "10.00 [5.5, 17.4]"


def test_two_folders_of_images_have_titles_that_differ(trained, evaluated):
    one, two = trained("a"), trained("b")
    runs = [one, two]
    for place in ("cats", "dogs"):
        for run in (
            evaluated(one, {"pgd20": ({"name": "pgd"}, 50)}, source=two),
            evaluated(one, {"pgd20": ({"name": "pgd"}, 40)}),
        ):
            dataset = {"name": "folder", "path": f"/data/{place}/photos"}
            recorded = {"name": "folder", "test": 100, "test_sha256": place}
            runs.append(replace(run, config={**run.config, "dataset": dataset}, dataset=recorded))
    titles = [matrix.title for matrix in transfer_matrices(runs)]
    assert titles == [
        f"pgd20: folder:{place}/photos, Linf 0.3, n 100" for place in ("cats", "dogs")
    ]
