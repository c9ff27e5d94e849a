"""Which joint attacks are put into one table, and which are seeds of one another."""

from dataclasses import replace

import numpy as np
import pytest

from robustbench_cli.evaluation.journal import write_arrays
from robustbench_cli.report.example_files import ExampleFiles
from robustbench_cli.report.joint_table import ALL, tables
from robustbench_cli.report.statistics import wilson
from robustbench_cli.runs.outcomes import Domain
from robustbench_cli.runs.records import filed

MIN_MAX = {"name": "min-max", "weights": "min-max", "steps": 50}
AVERAGE = {**MIN_MAX, "weights": "avg"}


@pytest.fixture
def attacked(evaluated):
    """A maker of records: runs, the attack's parameters, accuracy per domain, wrong in all."""

    def make(runs, params, right, wrong_in_all, *, images=1, transform=("identity",), **changes):
        stood = (100 - wrong_in_all) / 100
        figures = {"min-max": (params, 100 - wrong_in_all)}
        base = evaluated(runs[0], figures, worst=100 - wrong_in_all, **changes)
        names = [
            f"{run.id} {how}" if len(transform) > 1 else run.id for run in runs for how in transform
        ]
        return replace(
            base,
            kind="joint",
            config={
                "runs": {run.id: run.checkpoint.sha256 for run in runs},
                "transform": {name: {"name": name} for name in transform},
                "images": images,
                "attack": {"min-max": params},
                **{key: base.config[key] for key in ("threat", "dataset")},
            },
            worst_case_accuracy=stood,
            domains=[
                Domain(name=name, clean_accuracy=1.0, robust_accuracy=share / 100, weight=0.5)
                for name, share in zip(names, right, strict=True)
            ],
        )

    return make


@pytest.fixture
def pairs(trained):
    """Two defenses under two seeds."""
    return [[trained(name, seed) for name in ("standard", "trades")] for seed in (0, 1)]


def test_seeds_of_the_same_defenses_are_joined_and_attacks_stand_side_by_side(pairs, attacked):
    runs = [
        *(run for pair in pairs for run in pair),
        *(attacked(pair, MIN_MAX, (20, 40), 50 + 10 * i) for i, pair in enumerate(pairs)),
        *(attacked(pair, AVERAGE, (10, 50), 45) for pair in pairs),
    ]
    (table,) = tables(runs)
    assert table.title == "standard, trades: mnist, Linf 0.3, n 100"
    assert table.domains == ("standard", "trades")
    first, second = table.lines
    assert (first.attack, second.attack) == ("min-max:weights=min-max", "min-max:weights=avg")
    assert first.cells[ALL].correct == (50, 60)
    assert first.cells[ALL].text == "55.00 ± 7.07"
    assert first.cells["standard"].correct == (20, 20)
    assert second.cells["trades"].correct == (50, 50)
    assert [len(line.runs) for line in table.lines] == [2, 2]


def test_of_a_repeated_attack_the_latest_counts(pairs, attacked):
    again = [attacked(pairs[0], MIN_MAX, (20, 40), wrong) for wrong in (30, 31)]
    (table,) = tables([*pairs[0], *again])
    assert table.lines[0].cells[ALL].correct == (31,)
    assert table.lines[0].runs == (again[1].id,)


@pytest.mark.parametrize(
    "changes", [{"eps": 0.1}, {"sha": "other"}, {"images": 2}, {"transform": ("identity", "flip")}]
)
def test_another_setting_is_another_table(pairs, attacked, changes):
    domains = 2 * len(changes.get("transform", "i"))
    found = [
        attacked(pairs[0], MIN_MAX, (20, 40), 30),
        attacked(pairs[0], MIN_MAX, [20] * domains, 30, **changes),
    ]
    assert len(tables([*pairs[0], *found])) == 2


def test_other_defenses_are_another_table(pairs, trained, attacked):
    mart = trained("mart")
    found = [
        attacked(pairs[0], MIN_MAX, (20, 40), 30),
        attacked([pairs[0][0], mart], MIN_MAX, (20, 40), 30),
    ]
    titles = [table.title for table in tables([*pairs[0], mart, *found])]
    assert titles == [f"standard, {other}: mnist, Linf 0.3, n 100" for other in ("trades", "mart")]


def test_runs_of_one_defense_keep_their_ids_and_so_do_unknown_ones(trained, attacked):
    pair = [trained("trades", id="one"), trained("trades", id="two")]
    found = attacked(pair, MIN_MAX, (1, 2, 3, 4), 0, transform=("identity", "flip"))
    (known,), (unknown,) = tables([*pair, found]), tables([found])
    assert known.domains == unknown.domains
    assert known.domains == ("one identity", "one flip", "two identity", "two flip")
    assert known.title == "one, two under identity, flip: mnist, Linf 0.3, n 100"


@pytest.mark.parametrize("status", ["started", "interrupted", "failed"])
def test_unfinished_attacks_do_not_count(pairs, attacked, status):
    assert tables([*pairs[0], replace(attacked(pairs[0], MIN_MAX, (1, 2), 3), status=status)]) == []


def test_intervals_over_seeds_resample_the_examples(pairs, attacked, tmp_path):
    """Two seeds that agree on all examples are no more than one; without verdicts there is none."""
    wrong = np.arange(100) < 50
    labels = np.stack([np.arange(100) % 10] * 2, axis=1)
    prediction = np.where(np.stack([wrong, wrong | (np.arange(100) < 60)], axis=1), -1, labels)
    arrays = {"label": labels, "min-max/prediction": prediction}
    runs = [run for pair in pairs for run in pair]
    folders = []
    for pair in pairs:
        run = attacked(pair, MIN_MAX, (50, 40), 50)
        folders.append(tmp_path / run.id)
        (tmp_path / run.id).mkdir()
        file = write_arrays(tmp_path / run.id / "examples.npz", arrays)
        runs.append(replace(run, examples=filed(file)))
    files = ExampleFiles({folder.name: folder for folder in folders})
    (table,) = tables(runs, intervals=True, files=files)
    cells = table.lines[0].cells
    assert cells[ALL].interval == pytest.approx(wilson(50, 100))
    assert cells["trades"].interval == pytest.approx(wilson(40, 100))
    (table,) = tables(runs, intervals=True)
    assert table.lines[0].cells[ALL].interval is None
    assert table.lines[0].cells[ALL].text == "50.00 ± 0.00"


def test_two_folders_of_images_have_titles_that_differ(pairs, attacked):
    runs = [*pairs[0]]
    for size in (32, 64):
        run = attacked(pairs[0], MIN_MAX, (50, 40), 50)
        dataset = {"name": "folder", "path": "/data/photos", "size": size}
        recorded = {"name": "folder", "test": 100, "test_sha256": f"of {size}"}
        runs.append(replace(run, config={**run.config, "dataset": dataset}, dataset=recorded))
    titles = [table.title for table in tables(runs)]
    assert [title.split(": ")[1].split(", Linf")[0] for title in titles] == [
        "folder:photos,size=32",
        "folder:photos,size=64",
    ]
