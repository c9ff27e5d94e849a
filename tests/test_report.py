"""Which evaluations share a row, and what a row's numbers are."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from robustbench_cli.errors import UserError
from robustbench_cli.records import Checkpoint, Outcome, Run
from robustbench_cli.registry import radius
from robustbench_cli.report import rows, wilson

PGD20 = {"name": "pgd", "steps": 20, "step": 0.25, "last_iterate": False}
FGSM = {"name": "fgsm", "steps": 1, "step": 1.0, "last_iterate": False}
minutes = itertools.count()


def trained(subject="trades", seed=0, *, rule="last", **config):
    when = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=next(minutes))
    return Run(
        id=f"{subject}-s{seed}-{when:%H%M}",
        kind="train",
        status="ok",
        created=when,
        command=["train", subject],
        config={
            "defense": {subject: {"name": subject}},
            "model": {"name": "small-cnn", "dropout": 0.5},
            "train": {"epochs": 30, "lr": 0.1},
            "seed": seed,
            **config,
        },
        seed=seed,
        subject=subject,
        dataset={"name": "mnist", "train_sha256": "t", "test_sha256": "f"},
        checkpoint=Checkpoint(file="model.safetensors", sha256=f"w{when}", epoch=30, rule=rule),
    )


def evaluated(parent, attacks, /, *, clean=90, n=100, eps=0.3, worst=None, sha="f", **changes):
    """An evaluation; ``attacks`` is label -> (parameters, right answers)."""
    when = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=next(minutes))
    outcomes = {
        label: Outcome(
            params=params,
            n=n,
            correct=correct,
            robust_accuracy=correct / n,
            forwards=1,
            backwards=1,
            seconds=1.0,
        )
        for label, (params, correct) in attacks.items()
    }
    lowest = min(correct for _, correct in attacks.values()) if worst is None else worst
    fields = {
        "id": f"eval-{when:%H%M}",
        "kind": "eval",
        "status": "ok",
        "created": when,
        "command": ["eval"],
        "config": {
            "attack": {label: params for label, (params, _) in attacks.items()},
            "dataset": {"name": "mnist"},
            "model": parent.config["model"],
            "threat": {"norm": "Linf", "eps": eps},
            "seed": 0,
        },
        "seed": parent.seed,
        "parent": parent.id,
        "subject": parent.subject,
        "dataset": {"name": "mnist", "test": 1000, "test_sha256": sha},
        "weights": parent.checkpoint.sha256,
        "n": n,
        "clean_accuracy": clean / n,
        "worst_case_accuracy": lowest / n,
        "attacks": outcomes,
    }
    return Run(**{**fields, **changes})


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
    assert radius(eps) == text


def test_seeds_are_joined_as_mean_and_sample_deviation():
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


def test_an_interval_pools_the_seeds():
    runs = []
    for seed, correct in ((0, 3), (1, 5)):
        parent = trained(seed=seed)
        runs += [parent, evaluated(parent, {"pgd20": (PGD20, correct)}, n=5, clean=5)]
    (row,) = rows(runs, intervals=True)
    assert row.cells["pgd20"].interval == wilson(8, 10)
    assert row.cells["pgd20"].text == "80.00 [49.0, 94.3]"
    assert row.cells["pgd20"].raw["pgd20_low"] == wilson(8, 10)[0]


def test_one_seed_has_no_deviation():
    parent = trained()
    (row,) = rows([parent, evaluated(parent, {"pgd20": (PGD20, 52)})])
    assert row.cells["pgd20"].std is None
    assert row.cells["pgd20"].text == "52.00"
    assert row.cells["pgd20"].raw == {"pgd20": 0.52, "pgd20_std": None}


def test_evaluations_of_one_run_add_columns_and_the_latest_wins():
    parent = trained()
    runs = [
        parent,
        evaluated(parent, {"pgd20": (PGD20, 50)}, clean=90, worst=50),
        evaluated(parent, {"fgsm": (FGSM, 60), "pgd20": (PGD20, 49)}, clean=91, worst=48),
    ]
    (row,) = rows(runs)
    assert right(row) == {"clean": (91,), "pgd20": (49,), "fgsm": (60,), "worst": (48,)}
    assert list(row.cells) == ["clean", "pgd20", "fgsm", "worst"]


def test_worst_is_the_lowest_of_several_evaluations():
    parent = trained()
    strong = evaluated(parent, {"pgd20": (PGD20, 40)}, worst=39)
    (row,) = rows([parent, strong, evaluated(parent, {"fgsm": (FGSM, 60)})])
    assert right(row)["worst"] == (39,)


def test_one_label_for_two_attacks_is_told_apart():
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


def test_labels_that_no_suffix_can_tell_apart_still_get_columns_of_their_own():
    parent = trained()
    close = [PGD20 | {"step": 0.25 + 1e-9 * i} for i in range(3)]
    evaluations = [evaluated(parent, {"a": (params, i)}) for i, params in enumerate(close)]
    (row,) = rows([parent, *evaluations, evaluated(parent, {"worst": (FGSM, 60)}, worst=0)])
    assert right(row) == {
        "clean": (90,),
        "a:step=0.25": (0,),
        "a:step=0.25'": (1,),
        "a:step=0.25''": (2,),
        "worst'": (60,),
        "worst": (0,),
    }


def test_one_attack_under_two_labels_is_one_column():
    first, second = trained(), trained("mart")
    runs = [
        first,
        second,
        evaluated(first, {"pgd20": (PGD20, 50)}),
        evaluated(second, {"pgd:steps=20": (PGD20, 51)}),
    ]
    assert [right(row)["pgd20"] for row in rows(runs)] == [(50,), (51,)]


def test_counting_the_last_iterate_is_always_told():
    parent = trained()
    old = PGD20 | {"last_iterate": True}
    hidden = evaluated(parent, {"pgd20": (old, 55)})
    (row,) = rows([parent, hidden])
    assert "pgd20:last_iterate=true" in right(row)
    said = evaluated(parent, {"pgd20:last_iterate=true": (old, 55)})
    (row,) = rows([parent, said])
    assert "pgd20:last_iterate=true" in right(row)


@pytest.mark.parametrize("changes", [{"n": 50, "clean": 45}, {"eps": 0.1}, {"sha": "other"}])
def test_another_setting_is_another_row(changes):
    parent = trained()
    usual = evaluated(parent, {"pgd20": (PGD20, 40)})
    other = evaluated(parent, {"pgd20": (PGD20, 40)}, **changes)
    first, second = rows([parent, usual, other])
    assert first.setting != second.setting
    assert {first.runs, second.runs} == {(usual.id,), (other.id,)}


def test_rows_come_by_dataset_then_threat_then_creation():
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


def test_other_training_settings_are_another_row_that_says_so():
    slow, fast = trained(), trained(train={"epochs": 5, "lr": 0.1})
    runs = [slow, fast, *(evaluated(p, {"fgsm": (FGSM, 50)}) for p in (slow, fast))]
    names = [row.facts["defense"].text for row in rows(runs)]
    assert names == ["trades (train.epochs=30)", "trades (train.epochs=5)"]


def test_seeds_trained_on_other_data_are_not_joined():
    first, second = trained(seed=0), trained(seed=1)
    second.dataset["train_sha256"] = "other"
    runs = [first, second, *(evaluated(p, {"fgsm": (FGSM, 50)}) for p in (first, second))]
    assert [row.seeds for row in rows(runs)] == [(0,), (1,)]


def test_another_architecture_is_in_the_model_s_name():
    deep, wide = (
        trained(model={"name": "wrn", "depth": 34}),
        trained("mart", model={"name": "wrn", "depth": 28}),
    )
    runs = [deep, wide, *(evaluated(p, {"fgsm": (FGSM, 50)}) for p in (deep, wide))]
    assert [row.facts["model"].text for row in rows(runs)] == ["wrn:depth=34", "wrn:depth=28"]
    assert [row.facts["defense"].text for row in rows(runs)] == ["trades", "mart"]


def test_the_same_seed_trained_twice_counts_once():
    old, new = trained(), trained()
    runs = [old, new, *(evaluated(p, {"fgsm": (FGSM, c)}) for p, c in ((new, 50), (old, 70)))]
    (row,) = rows(runs)
    assert right(row)["fgsm"] == (50,)
    assert (row.seeds, row.retrained) == ((0,), 1)


def test_a_column_that_some_seeds_lack_says_so():
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


def test_a_model_without_a_training_run_is_known_by_its_weights():
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


def test_weights_chosen_on_the_test_set_are_marked():
    chosen, plain = trained(rule="oracle"), trained("mart")
    runs = [chosen, plain, *(evaluated(p, {"fgsm": (FGSM, 50)}) for p in (chosen, plain))]
    assert [row.oracle for row in rows(runs)] == [True, False]


def test_a_folder_of_images_is_named_by_its_path():
    parent = trained()
    run = evaluated(parent, {"fgsm": (FGSM, 50)})
    config = run.config | {"dataset": {"name": "folder", "path": "/data/cats"}}
    data = {"name": "folder", "test_sha256": "c"}
    (row,) = rows([parent, evaluated(parent, {"fgsm": (FGSM, 50)}, config=config, dataset=data)])
    assert row.facts["dataset"].text == "folder:cats"


@pytest.mark.parametrize("status", ["started", "interrupted", "failed"])
def test_unfinished_evaluations_do_not_count(status):
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
def test_a_record_without_what_it_must_have_is_named(changes, said):
    parent = trained()
    broken = replace(evaluated(parent, {"fgsm": (FGSM, 50)}), **changes)
    with pytest.raises(UserError, match=f"{broken.id}.*damaged.*{said}"):
        rows([parent, broken])
