"""``eval --within``: the last members of a series see a part of what stands, and that is said."""

import json
from dataclasses import replace

import pytest

from robustbench_cli import Threat, load_run
from robustbench_cli import evaluate as evaluate_in_memory
from robustbench_cli.cli import main
from robustbench_cli.report.number_trust import attack_trust, joined_trust, worst_trust
from robustbench_cli.runs import folders, records
from robustbench_cli.runs.trust import Finding

SERIES = "ensemble:pgd5/square-40"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    out = tmp_path_factory.mktemp("within") / "results"
    small = ["--epochs", "3", "--set", "train.probe=0", "--set", "model.width=8", "--quiet"]
    assert main(["train", "pgd-at", "--name", "net", "--out", str(out), *small]) == 0
    return out


def evaluate(results, out, *words, attack=SERIES):
    command = ["eval", "--run", str(results / "net"), "--attack", attack, "--eps", "0.1"]
    return main([*command, "--out", str(out), "--quiet", *words])


@pytest.fixture(scope="module")
def sampled(results, tmp_path_factory):
    out = tmp_path_factory.mktemp("sampled")
    assert evaluate(results, out, "--within", "3", "--name", "part") == 0
    assert evaluate(results, out, "--name", "whole") == 0
    return out


def read(out, name):
    run = records.read(out / name)
    return run, next(iter(run.attacks.values()))


def test_the_record_holds_the_bounds_and_the_truth_lies_between(sampled):
    run, part = read(sampled, "part")
    _, whole = read(sampled, "whole")
    tail = part.sampled
    assert whole.sampled is None
    assert 0 < tail.looked_at < tail.standing
    assert tail.broken <= tail.broken_at_most
    assert tail.least <= whole.robust_accuracy <= part.robust_accuracy
    assert part.robust_accuracy - tail.least <= 0.03
    assert tail.least == pytest.approx((part.correct - tail.broken_at_most + tail.broken) / part.n)
    assert part.forwards < whole.forwards
    assert run.config["within"] == 3
    assert "within" not in read(sampled, "whole")[0].config


def test_it_is_no_exact_number_anywhere(sampled, capsys):
    run, part = read(sampled, "part")
    (label,) = run.attacks
    trust = attack_trust(run, label)
    assert (trust.trust, trust.found, trust.confidence) == ("upper bound", part.sampled.least, 0.95)
    assert not trust.competes
    assert run.worst_case_trust == "upper bound"
    ends = f"{100 * part.sampled.least:.2f} to {100 * part.robust_accuracy:.2f} ~"
    for form in ("md", "latex", "terminal"):
        assert main(["report", "--results", str(sampled), "-f", form]) == 0
        table = capsys.readouterr().out.replace("\\textasciitilde{}", "~").replace(r"\%", "%")
        assert ends in table, form
        assert "with 95% confidence" in table, form
        assert "within 3" in table, form
    assert main(["report", "--results", str(sampled), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    (name,) = (key for row in rows for key in row if key.endswith("_found") and row[key])
    assert [row[name] for row in rows if row.get(name)] == [pytest.approx(part.sampled.least)]
    assert main(["list", "runs", "--results", str(sampled)]) == 0
    assert "~" in capsys.readouterr().out


def test_the_screen_says_both_ends(results, tmp_path, capsys):
    assert evaluate(results, tmp_path, "--within", "3") == 0
    said = capsys.readouterr().out
    _, part = read(tmp_path, next(iter(folders.every(tmp_path))).id)
    assert f"{part.sampled.least:.2%} to {part.robust_accuracy:.2%} ~" in said
    assert f"saw {part.sampled.looked_at} of the {part.sampled.standing} images" in said


def test_batches_and_interrupts_change_nothing(results, sampled, tmp_path, monkeypatch):
    words = ["--within", "3", "--batch-size", "37"]
    from robustbench_cli.evaluation.journal import Journal

    moved, calls = Journal.moved, []

    def stop(self, *args):
        calls.append(args)
        if len(calls) == 30:
            raise KeyboardInterrupt
        return moved(self, *args)

    monkeypatch.setattr(Journal, "moved", stop)
    assert evaluate(results, tmp_path, *words) == 130
    monkeypatch.setattr(Journal, "moved", moved)
    assert evaluate(results, tmp_path, *words) == 0
    (run,) = folders.every(tmp_path)
    _, expected = read(sampled, "part")
    (found,) = run.attacks.values()
    assert found.sampled == expected.sampled
    assert (found.correct, found.broken_by) == (expected.correct, expected.broken_by)


def test_a_tolerance_that_leaves_nothing_open_is_exact(results, sampled, tmp_path):
    assert evaluate(results, tmp_path, "--within", "0.1", "--n", "60", "--name", "all") == 0
    assert evaluate(results, tmp_path, "--n", "60", "--name", "plain") == 0
    (_, found), (_, plain) = read(tmp_path, "all"), read(tmp_path, "plain")
    if found.sampled.whole:
        assert found.trust == plain.trust
        assert found.variant == ""
    assert found.sampled.broken_at_most - found.sampled.broken == 0
    assert found.robust_accuracy >= plain.robust_accuracy


def test_a_gate_goes_by_the_lower_end(results, tmp_path, capsys):
    assert evaluate(results, tmp_path, "--within", "3", "--name", "x") == 0
    _, part = read(tmp_path, "x")
    low, high = 100 * part.sampled.least, 100 * part.robust_accuracy
    assert evaluate(results, tmp_path, "--within", "3", "--fail-under", f"{low - 0.1:.2f}") == 0
    capsys.readouterr()
    middle = f"{(low + high) / 2:.2f}"
    assert evaluate(results, tmp_path, "--within", "3", "--fail-under", middle) == 4
    assert "not shown to reach" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("attack", "words", "said"),
    [
        ("pgd5", [], "is for autoattack and ensembles"),
        ("ensemble:pgd5/square-40,target=1", [], "is for autoattack and ensembles"),
        (SERIES, ["--sweep", "eps=0,0.1"], "goes without --sweep"),
    ],
)
def test_what_has_no_tail_is_refused(results, tmp_path, capsys, attack, words, said):
    assert evaluate(results, tmp_path / "new", "--within", "1", *words, attack=attack) == 2
    assert said in capsys.readouterr().err
    assert not [*tmp_path.glob("new/*/run.json")]


@pytest.mark.parametrize("points", ["0", "-1", "many", "101"])
def test_points_are_above_0(results, tmp_path, capsys, points):
    assert evaluate(results, tmp_path / "new", f"--within={points}") == 2
    assert "within" in capsys.readouterr().err


def test_what_else_hides_the_truth_leaves_an_upper_bound(sampled):
    run, part = read(sampled, "part")
    (label,) = run.attacks
    other = Finding(check="secant", severity="warning", message="gradients mislead", accuracy=0.2)
    hidden = replace(run, findings=[*run.findings, other])
    trust = attack_trust(hidden, label)
    assert (trust.confidence, trust.found) == (None, 0.2)
    assert trust.written("50.00", "20.00").startswith("≤")
    both = [attack_trust(run, label)] * 2
    joined = joined_trust(both, [part.robust_accuracy] * 2)
    assert joined.confidence == pytest.approx(0.9)


def test_the_worst_case_counts_what_every_sample_left_open(results, tmp_path):
    """Two samples may have left different images open; the lower of their ends is no bound."""
    pair = ["--attack", "ensemble:pgd3/square-30", "--within", "4", "--name", "two"]
    assert evaluate(results, tmp_path, *pair) == 0
    run, _ = read(tmp_path, "two")
    open_ = [each.sampled.broken_at_most - each.sampled.broken for each in run.attacks.values()]
    assert all(open_)
    trust = worst_trust(run)
    assert trust.found == pytest.approx(run.worst_case_accuracy - sum(open_) / run.n)
    assert trust.confidence == pytest.approx(0.9)


def test_python_has_both_ends(results):
    run = load_run(results / "net")
    x, y = run.test_images(200)
    threat = Threat("Linf", 0.1)
    found = evaluate_in_memory(run.model, x, y, attacks=[SERIES], threat=threat, within=4)
    exact = evaluate_in_memory(run.model, x, y, attacks=[SERIES], threat=threat)
    low, high = found.bounds[SERIES]
    assert (exact.bounds, high) == ({}, found.robust_accuracy[SERIES])
    assert low <= exact.robust_accuracy[SERIES] <= high <= low + 0.04
    assert found.trust[SERIES] == "upper bound"
    assert "~" in found.table()
    assert "within" not in exact.record.config
