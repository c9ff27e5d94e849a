"""Which evaluations share a row, and what a row's numbers are."""

from dataclasses import replace

import numpy as np
import pytest

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.threat_text import format_eps
from robustbench_cli.report.example_files import ExampleFiles
from robustbench_cli.report.robustness_table import rows
from robustbench_cli.report.statistics import wilson
from robustbench_cli.runs.outcomes import Checkpoint
from robustbench_cli.runs.widened_n import WidenedN

PGD20 = {"name": "pgd", "steps": 20, "step": 0.25, "last_iterate": False}
DEEPFOOL = {"name": "deepfool", "steps": 50, "overshoot": 0.02}
FGSM = {"name": "fgsm", "steps": 1, "step": 1.0, "last_iterate": False}


def right(row):
    """Column -> right answers per seed, for what was measured."""
    return {name: cell.correct for name, cell in row.cells.items() if cell}


# Reference values: scipy.stats.binomtest(correct, n).proportion_ci(method="wilson").
@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [
        (8, 10, 0.4901625, 0.9433178),
        (0, 10, 0.0, 0.2775328),
        (10, 10, 0.7224672, 1.0),
        (5231, 10000, 0.5133036, 0.5328784),
    ],
)
def test_wilson_gives_known_intervals(correct, n, low, high):
    assert wilson(correct, n) == pytest.approx((low, high), abs=1e-6)


def test_wilson_is_exact_at_both_ends():
    assert all(wilson(0, n)[0] == 0 and wilson(n, n)[1] == 1 for n in range(1, 300))


@pytest.mark.parametrize(
    ("eps", "text"),
    [
        (8 / 255, "8/255"),
        (0.031372549, "8/255"),
        (0.031, "0.031"),
        (0.3, "0.3"),
        (0.2, "0.2"),  # 51/255, which nobody writes
        (1.0, "1"),
        (0.5, "0.5"),
        (128 / 255, "128/255"),
    ],
)
def test_a_radius_is_written_as_it_was_meant(eps, text):
    assert format_eps(eps) == text


def test_seeds_are_joined_as_mean_and_sample_deviation(trained, evaluated):
    runs = []
    for seed, correct in ((0, 50), (1, 54), (2, 52)):
        parent = trained(seed=seed)
        runs += [parent, evaluated(parent, {"pgd20": (PGD20, correct)}, clean=90 + seed)]
    (row,) = rows(runs)
    assert row.seeds == (0, 1, 2)
    assert right(row) == {"clean": (90, 91, 92), "pgd20": (50, 54, 52), "worst": (50, 54, 52)}
    assert row.cells["pgd20"].text == "52.00 ± 2.00"
    assert row.cells["clean"].text == "91.00 ± 1.00"
    assert len(row.runs) == 3


def test_an_interval_of_one_seed_needs_no_verdicts(trained, evaluated):
    parent = trained()
    run = evaluated(parent, {"pgd20": (PGD20, 8)}, n=10, clean=10)
    (row,) = rows([parent, run], intervals=True)
    assert row.cells["pgd20"].interval == wilson(8, 10)
    assert row.cells["pgd20"].text == "80.00 [49.0, 94.3]"
    assert row.cells["pgd20"].raw["pgd20_low"] == wilson(8, 10)[0]


def test_an_interval_over_all_looks_is_of_one_seed_and_shown_unasked(trained, evaluated):
    """Several seeds have no such interval together: they are a mean and a deviation."""
    ends = {"clean": (0.8, 0.95), "attacks": {"pgd20": (0.4, 0.63)}}
    looked = WidenedN(asked=12, sizes=[100, 200], looks=1, alpha=0.05, **ends)
    runs = []
    for seed in (0, 1):
        parent = trained(seed=seed)
        runs += [parent, replace(evaluated(parent, {"pgd20": (PGD20, 52)}), widened=looked)]
    (one,), (two,) = rows(runs[:2]), rows(runs)
    assert one.cells["pgd20"].interval == one.cells["worst"].interval == (0.4, 0.63)
    assert one.cells["clean"].text == "90.00 [80.0, 95.0]"
    assert two.cells["pgd20"].text == "52.00 ± 0.00"
    assert not two.cells["pgd20"].no_interval


def test_an_interval_over_seeds_does_not_count_them_as_images(trained, judged, tmp_path):
    """Two seeds, 100 images, verdicts that mostly agree: as fault A9 was seen."""
    draw = np.random.default_rng(0)
    hard, runs = draw.normal(0, 2, 100), {}
    for seed in (0, 1):
        parent = trained(seed=seed)
        share = (hard + draw.normal(0, 0.8, 100) > 0) * 1.0
        runs[tmp_path / parent.id] = parent
        run = judged(tmp_path, parent, np.ones(100), {"pgd20": (PGD20, share)})
        runs[tmp_path / run.id] = run
    files = ExampleFiles.of_runs(runs)
    (row,) = rows([*runs.values()], intervals=True, files=files)
    cell = row.cells["pgd20"]
    low, high = cell.interval
    pooled = wilson(sum(cell.correct), 200)
    assert high - low > 1.25 * (pooled[1] - pooled[0])
    assert low < cell.mean < high
    assert cell.text == f"{100 * cell.mean:.2f} [{100 * low:.1f}, {100 * high:.1f}]"
    (row,) = rows([*runs.values()], intervals=True)
    assert row.cells["pgd20"].interval is None
    assert "is missing" in row.cells["pgd20"].no_interval
    assert row.cells["pgd20"].text == f"{100 * cell.mean:.2f} ± {100 * cell.std:.2f}"


def test_one_seed_has_no_deviation(trained, evaluated):
    parent = trained()
    (row,) = rows([parent, evaluated(parent, {"pgd20": (PGD20, 52)})])
    assert row.cells["pgd20"].std is None
    assert row.cells["pgd20"].text == "52.00"
    assert row.cells["pgd20"].raw == {
        "pgd20": 0.52,
        "pgd20_std": None,
        "pgd20_trust": "sound",
    }


def test_evaluations_of_one_run_add_columns_and_the_latest_wins(trained, evaluated):
    parent = trained()
    runs = [
        parent,
        evaluated(parent, {"pgd20": (PGD20, 50)}, clean=90, worst=50),
        evaluated(parent, {"fgsm": (FGSM, 60), "pgd20": (PGD20, 49)}, clean=91, worst=48),
    ]
    (row,) = rows(runs)
    assert right(row) == {"clean": (91,), "pgd20": (49,), "fgsm": (60,), "worst": (48,)}
    assert list(row.cells) == ["clean", "pgd20", "fgsm", "worst", "minutes"]


def test_worst_is_the_lowest_of_several_evaluations(trained, evaluated):
    parent = trained()
    strong = evaluated(parent, {"pgd20": (PGD20, 40)}, worst=39)
    (row,) = rows([parent, strong, evaluated(parent, {"fgsm": (FGSM, 60)})])
    assert right(row)["worst"] == (39,)


def test_one_label_for_two_attacks_is_told_apart(trained, evaluated):
    parent = trained()
    runs = [
        parent,
        evaluated(parent, {"pgd20": (PGD20, 50)}),
        evaluated(parent, {"pgd20": (PGD20 | {"step": 0.1}, 45)}),
    ]
    (row,) = rows(runs)
    assert right(row) == {
        "clean": (90,),
        "pgd20:step=0.25": (50,),
        "pgd20:step=0.1": (45,),
        "worst": (45,),
    }


def test_parameters_that_are_written_alike_get_all_their_digits(trained, evaluated):
    parent = trained()
    close = [PGD20 | {"step": 0.25 + 1e-9 * i} for i in range(3)]
    evaluations = [evaluated(parent, {"a": (params, i)}) for i, params in enumerate(close)]
    (row,) = rows([parent, *evaluations, evaluated(parent, {"worst": (FGSM, 60)}, worst=0)])
    assert right(row) == {
        "clean": (90,),
        "a:step=0.25": (0,),
        "a:step=0.250000001": (1,),
        "a:step=0.250000002": (2,),
        "worst'": (60,),
        "worst": (0,),
    }


def test_one_attack_under_two_labels_is_one_column(trained, evaluated):
    first, second = trained(), trained("mart")
    runs = [
        first,
        second,
        evaluated(first, {"pgd20": (PGD20, 50)}),
        evaluated(second, {"pgd:steps=20": (PGD20, 51)}),
    ]
    assert [right(row)["pgd20"] for row in rows(runs)] == [(50,), (51,)]


def test_counting_the_last_iterate_is_always_told(trained, evaluated):
    parent = trained()
    old = PGD20 | {"last_iterate": True}
    hidden = evaluated(parent, {"pgd20": (old, 55)})
    (row,) = rows([parent, hidden])
    assert "pgd20:last_iterate=true" in right(row)
    said = evaluated(parent, {"pgd20:last_iterate=true": (old, 55)})
    (row,) = rows([parent, said])
    assert "pgd20:last_iterate=true" in right(row)


@pytest.mark.parametrize("changes", [{"n": 50, "clean": 45}, {"eps": 0.1}, {"sha": "other"}])
def test_another_setting_is_another_row(trained, evaluated, changes):
    parent = trained()
    usual = evaluated(parent, {"pgd20": (PGD20, 40)})
    other = evaluated(parent, {"pgd20": (PGD20, 40)}, **changes)
    first, second = rows([parent, usual, other])
    assert first.setting != second.setting
    assert {first.runs, second.runs} == {(usual.id,), (other.id,)}


def test_rows_come_by_dataset_then_threat_then_creation(trained, evaluated):
    late, early = trained("b"), trained("a")
    runs = [
        late,
        early,
        evaluated(late, {"fgsm": (FGSM, 1)}, eps=0.3),
        evaluated(early, {"fgsm": (FGSM, 2)}, eps=0.3),
        evaluated(early, {"fgsm": (FGSM, 3)}, eps=0.1),
        evaluated(
            early,
            {"fgsm": (FGSM, 4)},
            dataset={"name": "digits", "test_sha256": "d"},
        ),
    ]
    assert [right(row)["fgsm"] for row in rows(runs)] == [(4,), (3,), (1,), (2,)]


def test_other_training_settings_are_another_row_that_says_so(trained, evaluated):
    slow, fast = trained(), trained(train={"epochs": 5, "lr": 0.1})
    runs = [slow, fast, *(evaluated(p, {"fgsm": (FGSM, 50)}) for p in (slow, fast))]
    names = [row.facts["defense"].text for row in rows(runs)]
    assert names == ["trades (train.epochs=30)", "trades (train.epochs=5)"]


def test_seeds_trained_on_other_data_are_not_joined(trained, evaluated):
    first, second = trained(seed=0), trained(seed=1)
    second.dataset["train_sha256"] = "other"
    runs = [first, second, *(evaluated(p, {"fgsm": (FGSM, 50)}) for p in (first, second))]
    assert [row.seeds for row in rows(runs)] == [(0,), (1,)]


def test_another_architecture_is_in_the_model_s_name(trained, evaluated):
    deep, wide = (
        trained(model={"name": "wrn", "depth": 34}),
        trained("mart", model={"name": "wrn", "depth": 28}),
    )
    runs = [deep, wide, *(evaluated(p, {"fgsm": (FGSM, 50)}) for p in (deep, wide))]
    assert [row.facts["model"].text for row in rows(runs)] == ["wrn:depth=34", "wrn:depth=28"]
    assert [row.facts["defense"].text for row in rows(runs)] == ["trades", "mart"]


def test_the_same_seed_trained_twice_counts_once(trained, evaluated):
    old, new = trained(), trained()
    runs = [old, new, *(evaluated(p, {"fgsm": (FGSM, c)}) for p, c in ((new, 50), (old, 70)))]
    (row,) = rows(runs)
    assert right(row)["fgsm"] == (50,)
    assert (row.seeds, row.retrained) == ((0,), 1)


def test_a_column_that_some_seeds_lack_says_so(trained, evaluated):
    first, second = trained(seed=0), trained(seed=1)
    runs = [
        first,
        second,
        evaluated(first, {"fgsm": (FGSM, 60), "pgd20": (PGD20, 50)}),
        evaluated(second, {"fgsm": (FGSM, 60)}),
    ]
    (row,) = rows(runs)
    assert row.cells["pgd20"].text == "50.00 (1/2)"
    assert row.cells["fgsm"].text == "60.00 ± 0.00"


def test_a_model_without_a_training_run_is_known_by_its_weights(trained, evaluated):
    made = trained("net.py:make")
    runs = [
        evaluated(made, {"fgsm": (FGSM, 50)}, parent=None, weights="a" * 64),
        evaluated(made, {"pgd20": (PGD20, 40)}, parent=None, weights="a" * 64),
        evaluated(made, {"fgsm": (FGSM, 60)}, parent=None, weights="b" * 64),
    ]
    first, second = rows(runs)
    assert right(first) == {"clean": (90,), "fgsm": (50,), "pgd20": (40,), "worst": (40,)}
    assert first.facts["defense"].text == "net.py:make (weights=aaaaaaaa)"
    assert second.facts["defense"].text == "net.py:make (weights=bbbbbbbb)"


def test_weights_chosen_on_the_test_set_are_marked(trained, evaluated):
    chosen, plain = trained(rule="oracle"), trained("mart")
    runs = [chosen, plain, *(evaluated(p, {"fgsm": (FGSM, 50)}) for p in (chosen, plain))]
    assert [row.oracle for row in rows(runs)] == [True, False]


def test_a_folder_of_images_is_named_by_its_path(trained, evaluated):
    parent = trained()
    run = evaluated(parent, {"fgsm": (FGSM, 50)})
    config = run.config | {"dataset": {"name": "folder", "path": "/data/cats"}}
    data = {"name": "folder", "test_sha256": "c"}
    (row,) = rows([parent, evaluated(parent, {"fgsm": (FGSM, 50)}, config=config, dataset=data)])
    assert row.facts["dataset"].text == "folder:cats"


@pytest.mark.parametrize("status", ["started", "interrupted", "failed"])
def test_unfinished_evaluations_do_not_count(trained, evaluated, status):
    parent = trained()
    assert rows([parent, evaluated(parent, {"fgsm": (FGSM, 50)}, status=status)]) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"config": {}}, "'threat'"),
        ({"dataset": {"name": "mnist"}}, "'test_sha256'"),
        ({"clean_accuracy": None}, "accuracies"),
        ({"n": None}, "accuracies"),
    ],
)
def test_a_record_without_what_it_must_have_is_named(trained, evaluated, changes, said):
    parent = trained()
    broken = replace(evaluated(parent, {"fgsm": (FGSM, 50)}), **changes)
    with pytest.raises(UserError, match=f"{broken.id}.*damaged.*{said}"):
        rows([parent, broken])


def far(correct, distance, params=DEEPFOOL):
    """A minimal attack's outcome."""
    return params, correct, {"minimal": True, "median_norm": distance}


def test_a_minimal_attack_has_its_distance_beside_its_accuracy(trained, evaluated):
    runs = []
    for seed, distance in ((0, 0.12), (1, 0.16)):
        parent = trained(seed=seed)
        asked = {"deepfool": far(30, distance), "pgd20": (PGD20, 40)}
        runs += [parent, evaluated(parent, asked)]
    (row,) = rows(runs)
    assert list(row.cells) == ["clean", "deepfool", "deepfool dist", "pgd20", "worst", "minutes"]
    cell = row.cells["deepfool dist"]
    assert cell.distances == (0.12, 0.16)
    assert cell.text == "0.1400 ± 0.0283"
    assert cell.raw == {
        "deepfool_dist": pytest.approx(0.14),
        "deepfool_dist_std": pytest.approx(0.0282843, abs=1e-7),
        "deepfool_dist_trust": "sound",
    }


def test_a_distance_that_some_seeds_lack_says_so(trained, evaluated):
    first, second = trained(seed=0), trained(seed=1)
    runs = [first, second, evaluated(first, {"deepfool": far(30, 0.12)})]
    (row,) = rows([*runs, evaluated(second, {"pgd20": (PGD20, 40)})])
    assert row.cells["deepfool dist"].text == "0.1200 (1/2)"


def test_where_half_of_the_images_were_not_reached_the_median_is_infinite(trained, evaluated):
    weak, strong = trained(), trained("mart")
    reached = evaluated(weak, {"deepfool": far(30, 0.12)})
    unreached = evaluated(strong, {"deepfool": far(80, None)})
    first, second = rows([weak, strong, reached, unreached])
    cell = second.cells["deepfool dist"]
    assert cell.text == "∞"
    assert cell.raw == {
        "deepfool_dist": None,
        "deepfool_dist_std": None,
        "deepfool_dist_trust": "sound",
    }
    assert first.cells["deepfool dist"].rank > cell.rank


def test_what_no_record_holds_is_no_infinite_distance(trained, evaluated):
    weak, old = trained(), trained("mart")
    now = evaluated(weak, {"deepfool": far(80, 0.1)})
    before = evaluated(old, {"deepfool": (DEEPFOOL, 80)})  # from when nobody measured distances
    wrong = trained("alp")
    nothing = evaluated(wrong, {"deepfool": far(0, None)}, clean=0)
    found = rows([weak, old, wrong, now, before, nothing])
    assert [bool(row.cells["deepfool dist"]) for row in found] == [True, False, False]


def test_a_label_cannot_take_a_distance_s_place(trained, evaluated):
    parent = trained()
    asked = {"deepfool dist": (FGSM, 60), "deepfool": far(30, 0.12)}
    (row,) = rows([parent, evaluated(parent, asked)])
    assert row.cells["deepfool dist"].correct == (60,)
    assert row.cells["deepfool' dist"].distances == (0.12,)


def test_images_from_another_model_are_not_in_its_row(trained, evaluated):
    one, other = trained(), trained("standard")
    runs = [one, other, evaluated(one, {"pgd20": (PGD20, 40)})]
    moved = evaluated(one, {"pgd20": (PGD20, 70), "fgsm": (FGSM, 20)}, source=other)
    (row,) = rows([*runs, moved])
    assert right(row) == {"clean": (90,), "pgd20": (40,), "worst": (40,)}
    (row,) = rows([*runs, moved], keep=lambda run: True)
    assert right(row) == {
        "clean": (90,),
        "pgd20": (40,),
        "pgd20 from standard": (70,),
        "fgsm from standard": (20,),
        "worst": (40,),
    }
    assert [run.id for run in runs[2:] if run.settings.source] == []


def test_two_sources_of_one_name_are_told_apart(trained, evaluated):
    one, first, second = trained(), trained("s", id="s-1"), trained("s", id="s-2")
    moved = [evaluated(one, {"fgsm": (FGSM, 50)}, source=source) for source in (first, second)]
    (row,) = rows([one, first, second, *moved], keep=lambda run: True)
    assert {"fgsm:source=s-1 from s", "fgsm:source=s-2 from s"} < set(right(row))


def over_eps(correct, params=PGD20, label="pgd20"):
    """The outcomes of a sweep: radius -> right answers."""
    return {f"{label}@eps={eps:g}": (params, c, {"eps": eps}) for eps, c in correct.items()}


def over_steps(correct, params=PGD20, label="pgd20"):
    return {f"{label}@steps={k}": (params | {"steps": k}, c) for k, c in correct.items()}


def test_a_sweep_has_no_part_in_the_usual_rows(trained, evaluated):
    parent = trained()
    usual = evaluated(parent, {"pgd20": (PGD20, 40)})
    sweep = evaluated(parent, over_eps({0.1: 80, 0.5: 0}), sweep={"eps": [0.1, 0.5]})
    (row,) = rows([parent, usual, sweep])
    assert right(row) == {"clean": (90,), "pgd20": (40,), "worst": (40,)}
    assert row.runs == (usual.id,)


def test_each_point_of_a_sweep_can_have_a_column(trained, evaluated):
    parent = trained()
    steps = evaluated(parent, over_steps({50: 31, 1: 77}), sweep={"steps": [1, 50]})
    steps.config["attack"]["pgd20"] = PGD20
    runs = [
        parent,
        evaluated(parent, over_eps({8 / 255: 60, 0.1: 20}), sweep={"eps": [8 / 255, 0.1]}),
        steps,
        evaluated(parent, {"pgd20": (PGD20, 40)}),
    ]
    (row,) = rows(runs, keep=lambda run: True)
    assert right(row) == {
        "clean": (90,),
        "pgd20": (40,),
        "pgd20@eps=8/255": (60,),
        "pgd20@eps=0.1": (20,),
        "pgd@steps=1": (77,),
        "pgd@steps=50": (31,),
        "worst": (40,),  # a sweep holds radii that nobody was asked to withstand
    }
    assert list(row.cells)[2:6] == [
        *("pgd20@eps=8/255", "pgd20@eps=0.1", "pgd@steps=1", "pgd@steps=50")
    ]


@pytest.mark.parametrize(
    ("label", "changes", "column"),
    [
        ("pgd20", {}, "pgd@steps=5"),
        ("pgd-20", {}, "pgd@steps=5"),
        ("pgd:steps=20,step=0.1", {"step": 0.1}, "pgd:step=0.1@steps=5"),
        ("mine", {}, "mine@steps=5"),
        ("pgd20", {"last_iterate": True}, "pgd:last_iterate=true@steps=5"),
    ],
)
def test_a_sweep_over_steps_is_not_called_by_a_number_of_steps(
    trained, evaluated, label, changes, column
):
    parent = trained()
    run = evaluated(parent, over_steps({5: 50}, PGD20 | changes, label), sweep={"steps": [5]})
    run.config["attack"][label] = PGD20 | changes
    (row,) = rows([parent, run], keep=lambda run: True)
    assert list(right(row)) == ["clean", column]


def test_a_randomised_model_counts_as_often_as_it_is_right(trained, evaluated):
    parent = trained()
    random = {"robust_accuracy": 0.4525, "majority_accuracy": 0.47, "spread": (0.44, 0.46)}
    run = evaluated(parent, {"pgd20": (PGD20, 47, random)}, clean=90.3, worst=45.25)
    (row,) = rows([parent, run])
    assert right(row) == {"clean": (90.3,), "pgd20": (45.25,), "worst": (45.25,)}
    assert row.cells["pgd20"].text == "45.25"
    shares = replace(run, clean_accuracy=0.9000000357)  # what float32 makes of 0.9
    (row,) = rows([parent, shares])
    assert right(row)["clean"] == (90,)


def late(run, parent):
    """The same evaluation, of the weights after the parent's last epoch."""
    return replace(run, weights=parent.last.sha256, evaluated=parent.last)


def overfitted(trained, seed=0, **config):
    """A run that keeps its best epoch, and the last one's weights beside it."""
    run = trained("pgd-at", seed, rule="best", **config)
    kept = Checkpoint(file="last.safetensors", sha256=f"last of {run.id}", epoch=30, rule="last")
    return replace(run, last=kept)


def test_the_last_epoch_stands_beside_the_best_with_what_it_lost(trained, evaluated):
    parents = [overfitted(trained, seed) for seed in (0, 1)]
    runs = [*parents]
    for parent, best, last in zip(parents, (60, 64), (50, 60), strict=True):
        kept = evaluated(parent, {"pgd20": (PGD20, best)}, clean=80)
        runs.append(replace(kept, evaluated=parent.checkpoint))
        runs.append(late(evaluated(parent, {"pgd20": (PGD20, last)}, clean=82), parent))
    (row,) = rows(runs)
    assert row.cells["pgd20"].correct == (60, 64)
    assert row.cells["pgd20 last"].correct == (50, 60)
    assert row.cells["pgd20 diff"].values == pytest.approx((-0.10, -0.04))
    assert row.cells["pgd20 diff"].text == "-7.00 ± 4.24"
    assert row.cells["clean diff"].text == "+2.00 ± 0.00"
    assert row.cells["worst"].correct == (60, 64)  # of the weights that are kept


def test_a_difference_is_taken_within_a_seed(trained, evaluated):
    parents = [overfitted(trained, seed) for seed in (0, 1)]
    runs = [*parents, *(evaluated(p, {"pgd20": (PGD20, 60)}) for p in parents)]
    runs.append(late(evaluated(parents[1], {"pgd20": (PGD20, 45)}), parents[1]))
    (row,) = rows(runs)
    assert row.cells["pgd20 last"].text == "45.00 (1/2)"
    assert row.cells["pgd20 diff"].text == "-15.00 (1/2)"


def test_where_nobody_asked_for_the_last_epoch_there_is_no_column_for_it(trained, evaluated):
    parent = overfitted(trained)
    (row,) = rows([parent, evaluated(parent, {"pgd20": (PGD20, 60)})])
    assert list(row.cells) == ["clean", "pgd20", "worst", "minutes"]


def test_a_run_whose_rule_is_the_last_epoch_has_nothing_to_compare(trained, evaluated):
    parent = trained()
    run = replace(evaluated(parent, {"pgd20": (PGD20, 60)}), evaluated=parent.checkpoint)
    (row,) = rows([parent, run])
    assert list(row.cells) == ["clean", "pgd20", "worst", "minutes"]


def test_an_evaluation_of_an_unfinished_run_gives_way_to_one_of_its_final_weights(
    trained, evaluated
):
    parent = trained()
    early = replace(evaluated(parent, {"pgd20": (PGD20, 40)}), weights="after epoch 3")
    (row,) = rows([parent, early, evaluated(parent, {"pgd20": (PGD20, 55)})])
    assert right(row)["pgd20"] == (55,)
    assert row.retrained == 0


def test_an_evaluation_under_a_mask_has_a_row_of_its_own(trained, evaluated):
    run = trained()
    plain, masked = (evaluated(run, {"pgd20": ({"name": "pgd"}, right)}) for right in (40, 80))
    threat = {**masked.config["threat"], "mask": "border:width=2"}
    masked = replace(masked, config={**masked.config, "threat": threat})
    found = rows([run, plain, masked])
    assert [row.facts["eps"].text for row in found] == ["Linf 0.3", "Linf 0.3, mask border:width=2"]
    assert found[0].facts["eps"].raw == {"norm": "Linf", "eps": 0.3}
    assert found[1].facts["eps"].raw == {**found[0].facts["eps"].raw, "mask": "border:width=2"}
    assert found[0].setting != found[1].setting
    assert [row.cells["pgd20"].mean for row in found] == [0.4, 0.8]


def student(trained, seed, teacher):
    """A run that learned from another one."""
    known = {"run": teacher.id, "weights": teacher.checkpoint.sha256}
    return trained("rslad", seed, parents={"teacher": known})


def test_teachers_that_differ_in_their_seed_are_one_configuration(trained, evaluated):
    teachers = [trained("pgd-at", seed) for seed in (0, 1)]
    students = [student(trained, seed, teacher) for seed, teacher in enumerate(teachers)]
    other = trained("trades", 0)
    third = student(trained, 0, other)
    results = [evaluated(each, {"pgd20": (PGD20, 60)}) for each in (*students, third)]
    found = rows([*teachers, *students, other, third, *results])
    assert [(row.facts["defense"].text, row.seeds) for row in found] == [
        (found[0].facts["defense"].text, (0, 1)),
        (found[1].facts["defense"].text, (0,)),
    ]
    assert found[0].facts["defense"].text.startswith("rslad (parents.teacher.run=pgd-at, ")
    assert found[1].facts["defense"].text.startswith("rslad (parents.teacher.run=trades, ")
    # Without their records nothing is known of the teachers but their weights.
    assert len(rows([*students, third, *results])) == 3


def test_runs_on_other_extra_data_are_not_seeds_of_one(trained, evaluated):
    both = [trained("pgd-at", seed) for seed in (0, 1)]
    both = [
        replace(run, dataset={**run.dataset, "extra_sha256": f"pool {run.seed}"}) for run in both
    ]
    found = rows([*both, *(evaluated(each, {"pgd20": (PGD20, 60)}) for each in both)])
    assert [row.seeds for row in found] == [(0,), (1,)]
