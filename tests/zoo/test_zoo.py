"""Numbers of planted models are marked where they are overstated, those of honest ones are not."""

from collections import Counter

import pytest
from members import MEMBERS, ZOO
from truth import data_text, known, truth_of

from robustbench_cli.cli import main
from robustbench_cli.runs import records

N = 16
POINTS = 100 * 2 / N
"""Two images: what an honest attack may miss of the true accuracy."""
BY_NAME = {member.name: member for member in MEMBERS}
TRUTH = known()


@pytest.fixture
def needed(data_dir, monkeypatch):
    """Let members find MNIST and CIFAR-10, and skip what needs them where they are not."""
    monkeypatch.setenv("ADVBENCH_DATA", str(data_dir))


@pytest.mark.parametrize("name", BY_NAME)
def test_overstated_numbers_are_marked_and_honest_ones_are_sound(name, tmp_path, request, capsys):
    member = BY_NAME[name]
    if member.dataset != "digits":
        request.getfixturevalue("needed")
    options = ["--attack", "pgd20", "--n", str(N), "--eps", str(member.eps), "--quiet"]
    where = ["--out", str(tmp_path), "--name", "it"]
    data = ["--dataset", data_text(member)]
    code = main(["eval", "--model", member.factory, *data, *options, *member.options, *where])

    assert (code == 2) == member.refused, capsys.readouterr().err
    if member.refused:
        return
    outcome = records.read(tmp_path / "it").attacks["pgd20"]
    if not member.planted:
        assert outcome.trust == "sound"
    elif 100 * (outcome.robust_accuracy - TRUTH[name].accuracy(N)) > POINTS:
        assert outcome.trust in ("upper bound", "withheld")


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
