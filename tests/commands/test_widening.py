"""``eval --within POINTS --widen``: as many images as the intervals need, and not one more."""

import json
from unittest.mock import Mock

import numpy as np
import pytest

from robustbench_cli import Threat, load_run
from robustbench_cli import evaluate as evaluate_in_memory
from robustbench_cli.cli import main
from robustbench_cli.commands.checking import Checking
from robustbench_cli.evaluation import sequential_n
from robustbench_cli.evaluation.journal import Journal, read_arrays
from robustbench_cli.runs import folders, records

SERIES = "ensemble:pgd5/square-40"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    out = tmp_path_factory.mktemp("widening") / "results"
    small = ["--epochs", "3", "--set", "train.probe=0", "--set", "model.width=8", "--quiet"]
    assert main(["train", "pgd-at", "--name", "net", "--out", str(out), *small]) == 0
    return out


@pytest.fixture(autouse=True, scope="module")
def small_looks():
    """Digits have 500 test images: the first look is at 60 of them, then 120, 240, 480, 500."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequential_n, "FIRST_LOOK", 60)
        yield


def evaluate(results, out, *words, attack=("pgd5",)):
    attacks = [word for each in attack for word in ("--attack", each)]
    command = ["eval", "--run", str(results / "net"), "--eps", "0.1", *attacks]
    return main([*command, "--out", str(out), "--quiet", *words])


def only(out):
    (run,) = folders.every(out)
    return run


def test_it_stops_at_the_first_look_that_is_narrow_enough(results, tmp_path):
    assert evaluate(results, tmp_path, "--within", "12", "--widen") == 0
    run = only(tmp_path)
    widened = run.widened
    assert run.n == widened.sizes[widened.looks - 1] < 500
    assert widened.sizes == [60, 120, 240, 480, 500]
    assert widened.enough
    low, high = widened.attacks["pgd5"]
    assert low < run.attacks["pgd5"].robust_accuracy < high
    assert 50 * (high - low) <= 12
    assert run.config["subset"]["shuffle"] == run.config["seed"]
    assert run.checked is not None
    assert not (tmp_path / run.id / "journal").exists()
    fewer = [sequential_n.Look(sizes=tuple(widened.sizes), number=k) for k in range(widened.looks)]
    arrays = read_arrays(tmp_path / run.id / "examples.npz")
    for look in fewer[:-1]:  # what earlier looks saw was not enough
        right = float((arrays["pgd5/share"][: look.n] > 0).sum())
        ends = look.interval(right, right)
        assert 50 * (ends[1] - ends[0]) > 12


def test_the_verdicts_are_those_of_so_many_images_at_once(results, tmp_path):
    assert evaluate(results, tmp_path / "wide", "--within", "12", "--widen") == 0
    run = only(tmp_path / "wide")
    words = ["--n", str(run.n), "--shuffle", "0", "--batch-size", "37"]
    assert evaluate(results, tmp_path / "once", *words) == 0
    once = only(tmp_path / "once")
    assert once.widened is None
    wide = read_arrays(tmp_path / "wide" / run.id / "examples.npz")
    same = read_arrays(tmp_path / "once" / once.id / "examples.npz")
    for key in wide:
        assert np.array_equal(wide[key], same[key]), key
    assert run.attacks["pgd5"].forwards == once.attacks["pgd5"].forwards


LONG = ["--within", "6", "--widen"]


@pytest.fixture(scope="module")
def uninterrupted(results, tmp_path_factory, small_looks):
    out = tmp_path_factory.mktemp("whole")
    assert evaluate(results, out, *LONG, attack=(SERIES, "pgd5")) == 0
    return only(out)


@pytest.mark.parametrize("stop", [2, 5, 9])
def test_an_interrupted_one_ends_as_if_nothing_had_been(
    results, tmp_path, monkeypatch, stop, uninterrupted
):
    attack = (SERIES, "pgd5")
    moved, calls = Journal.moved, []

    def interrupt(self, *args):
        calls.append(args)
        if len(calls) == stop * 4:
            raise KeyboardInterrupt
        return moved(self, *args)

    monkeypatch.setattr(Journal, "moved", interrupt)
    words = [*LONG, "--batch-size", "32"]
    assert evaluate(results, tmp_path / "parts", *words, attack=attack) == 130
    monkeypatch.setattr(Journal, "moved", moved)
    assert evaluate(results, tmp_path / "parts", *words, attack=attack) == 0
    whole, parts = uninterrupted, only(tmp_path / "parts")
    assert parts.widened == whole.widened
    assert parts.n == whole.n
    assert len(parts.resumed) == 1
    for label, found in whole.attacks.items():
        assert parts.attacks[label].sampled == found.sampled
        assert parts.attacks[label].correct == found.correct


def test_one_that_is_interrupted_at_its_checks_goes_on_with_its_last_look(
    results, tmp_path, monkeypatch, capsys
):
    words = ["--within", "12", "--widen"]
    assert evaluate(results, tmp_path / "whole", *words) == 0
    with monkeypatch.context() as patch:
        patch.setattr(Checking, "conclude", Mock(side_effect=KeyboardInterrupt))
        assert evaluate(results, tmp_path / "parts", *words) == 130
    capsys.readouterr()
    net = ["eval", "--run", str(results / "net"), "--eps", "0.1", "--attack", "pgd5"]
    assert main([*net, *words, "--out", str(tmp_path / "parts")]) == 0
    whole, parts = only(tmp_path / "whole"), only(tmp_path / "parts")
    assert parts.widened == whole.widened
    assert parts.checked is not None
    assert not records.goes_on(parts)
    assert capsys.readouterr().err.count("going on with") == 1


def test_a_series_has_a_sampled_tail_within_half_the_points(results, tmp_path):
    assert evaluate(results, tmp_path, "--within", "9", "--widen", attack=(SERIES,)) == 0
    run = only(tmp_path)
    (outcome,) = run.attacks.values()
    tail, (low, high) = outcome.sampled, run.widened.attacks[SERIES]
    assert tail.broken_at_most - tail.broken <= 0.045 * run.n
    assert low < tail.least
    assert outcome.robust_accuracy < high
    looks = len(run.widened.sizes)
    assert tail.alpha == pytest.approx(0.05 / looks / 2)


def test_the_interval_is_shown_everywhere(results, tmp_path, capsys):
    assert evaluate(results, tmp_path, "--within", "12", "--widen") == 0
    run = only(tmp_path)
    low, high = (100 * end for end in run.widened.attacks["pgd5"])
    screen = capsys.readouterr().out
    assert f"{low:.1f} to {high:.1f}" in screen
    assert f"{run.n} of 500 images in random order" in screen
    for form in ("md", "latex", "terminal"):
        assert main(["report", "--results", str(tmp_path), "-f", form]) == 0
        assert f"[{low:.1f}, {high:.1f}]" in capsys.readouterr().out, form
    assert evaluate(results, tmp_path / "again", "--within", "12", "--widen", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["widened"]["attacks"]["pgd5"] == pytest.approx([low / 100, high / 100])


def test_with_images_in_memory_the_result_says_which_they_are(results):
    run = load_run(results / "net")
    x, y = run.test_images(300)
    found = evaluate_in_memory(
        run.model, x, y, attacks=["pgd5"], threat=Threat("Linf", 0.1), within=12, widen=True
    )
    n = found.record.n
    assert n < 300
    assert len(found.index) == n == len({*found.index.tolist()})
    assert found.labels.tolist() == y[found.index].tolist()
    assert found.index.tolist() != sorted(found.index.tolist())
    low, high = found.intervals["pgd5"]
    assert low < found.robust_accuracy["pgd5"] < high
    assert set(found.intervals) == {"clean", "pgd5"}
    assert found.worst_case_interval == found.intervals["pgd5"]


def test_where_images_run_out_that_is_said(results, tmp_path, capsys):
    assert evaluate(results, tmp_path, "--within", "1", "--widen", "--n", "130") == 0
    run = only(tmp_path)
    assert run.n == 130
    assert not run.widened.enough
    assert not run.widened.goes_on
    assert not records.goes_on(run)
    assert "not enough, and there are no more" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "attack", "said"),
    [
        (["--widen"], "pgd5", "goes with --within"),
        (["--widen", "--within", "5", "--budget", "10s"], "pgd5", "goes without"),
        (["--widen", "--within", "5", "--balanced"], "pgd5", "goes without --balanced"),
        (["--widen", "--within", "5", "--certify", "ibp"], "pgd5", "goes without --certify"),
        (["--widen", "--within", "5", "--sweep", "eps=0,0.1"], "pgd5", "goes without --sweep"),
        (["--widen", "--within", "5"], "pgd5:target=1", "target"),
    ],
)
def test_what_has_no_interval_is_refused(results, tmp_path, capsys, words, attack, said):
    assert evaluate(results, tmp_path / "new", *words, attack=(attack,)) == 2
    assert said in capsys.readouterr().err
    assert not [*tmp_path.glob("new/*/run.json")]
