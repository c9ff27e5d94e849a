"""The zoo is what its table says, and its true accuracies can be found again."""

from collections import Counter

import pytest
from members import MEMBERS, ZOO
from truth import known, truth_of

BY_NAME = {member.name: member for member in MEMBERS}
TRUTH = known()


@pytest.mark.parametrize(
    "name",
    ["backward:zero", "state:closure_answers", "batch:batch_brightness", "quantised:median"],
)
def test_the_truth_is_what_an_attack_finds(name):
    found, n = truth_of(BY_NAME[name], 10), 10

    assert abs(found.accuracy(n) - TRUTH[name].accuracy(n)) <= 1 / n + 1e-6


def test_every_kind_has_members_in_both_halves():
    halves = Counter((member.kind, member.half) for member in MEMBERS)
    kinds = {member.kind for member in MEMBERS}

    assert all(halves[kind, half] for kind in kinds for half in ("tune", "report"))
    assert len(kinds) > 11
    assert len(BY_NAME) == len(MEMBERS)


def test_the_truth_is_known_of_all():
    assert list(TRUTH) == list(BY_NAME)
    assert all(len(each.robust) == len(each.clean) == 100 for each in TRUTH.values())


def test_a_planted_model_hides_something():
    """Most planted models have a true accuracy near zero, and answer clean images well."""
    weak = [
        TRUTH[member.name]
        for member in MEMBERS
        if member.planted and TRUTH[member.name].accuracy(100) < 0.25
    ]

    assert len(weak) > 40
    assert sum(sum(each.clean) > 85 for each in weak) > 40


def test_weights_are_small_and_used():
    used = {name for member in MEMBERS for name in member.opening}
    files = {path.stem: path.stat().st_size for path in (ZOO / "weights").glob("*.safetensors")}

    assert max(files.values()) < 200_000
    assert {name for name in used if "-" in name} <= set(files)
