"""The combined score ERS, by the published rows that have all its parts."""

import csv
from collections import defaultdict
from pathlib import Path

import pytest

import robustbench_cli
from robustbench_cli.metric_learning.retrieval import RETRIEVAL_ATTACKS
from robustbench_cli.metric_learning.retrieval._score import SCORE_PARTS, robustness_score

TABLE = Path(robustbench_cli.__file__).parent / "papers" / "robust-dml.csv"
IN_PER_CENT = {*SCORE_PARTS} - {"TMA", "ES:D"}


def published():
    rows = defaultdict(dict)
    with TABLE.open(newline="") as file:
        for line in csv.DictReader(file):
            # How many steps a method was trained with is kept among the attack's parameters.
            trained = line["attack_params"].partition("train_steps=")[2]
            rows[line["table"], line["method"], line["dataset"], trained][line["metric"]] = float(
                line["value"]
            )
    return {key: row for key, row in rows.items() if "ERS" in row}


@pytest.mark.parametrize("key", sorted(published()), ids="/".join)
def test_published_scores_follow_from_their_parts(key):
    row = published()[key]
    parts = {name: row[name] / (100 if name in IN_PER_CENT else 1) for name in SCORE_PARTS}
    # Parts are printed with one decimal, the score, too.
    assert 100 * robustness_score(parts) == pytest.approx(row["ERS"], abs=0.11)


def test_the_ends_of_the_scale():
    lost = dict.fromkeys(SCORE_PARTS, 0.0) | {"CA-": 1, "QA-": 1, "TMA": 1, "ES:D": 2}
    kept = dict.fromkeys(SCORE_PARTS, 1.0) | {"CA+": 0.5, "QA+": 0.5}
    kept |= {"CA-": 0, "QA-": 0, "TMA": 0, "ES:D": 0}
    assert robustness_score(lost) == 0
    assert robustness_score(kept) == 1


def test_every_part_is_measured_by_an_attack():
    classes = [RETRIEVAL_ATTACKS.entry(name).cls for name in RETRIEVAL_ATTACKS.names()]
    assert {*SCORE_PARTS} == {name for each in classes for name in each.scales}
