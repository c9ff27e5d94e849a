"""``eval --budget``: what is known when it runs out, and going on with more."""

import json

import numpy as np
import pytest

from robustbench_cli import Threat, load_run
from robustbench_cli import evaluate as evaluate_in_memory
from robustbench_cli.cli import main
from robustbench_cli.core.errors import UserError
from robustbench_cli.evaluation.journal import Journal, read_arrays
from robustbench_cli.report.number_trust import attack_trust, clean_trust, worst_trust
from robustbench_cli.runs import folders, records

SERIES = "ensemble:pgd5/square-40"
N = 120
PART = 2000
"""Passes that are enough for the first member on all images, not for the second."""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    out = tmp_path_factory.mktemp("budget") / "results"
    small = ["--epochs", "2", "--set", "train.probe=0", "--set", "model.width=4", "--quiet"]
    assert main(["train", "fgsm-at", "--name", "net", "--out", str(out), *small]) == 0
    return out


def evaluate(results, out, *words, attacks=(SERIES,), checks=False):
    named = [word for attack in attacks for word in ("--attack", attack)]
    command = ["eval", "--run", str(results / "net"), *named, "--eps", "0.08", "--n", str(N)]
    return main([*command, "--out", str(out), *["--no-checks"] * (not checks), *words])


@pytest.fixture(scope="module")
def made(results, tmp_path_factory):
    """An evaluation whose budget ran out in its second member, and the whole one."""
    out = tmp_path_factory.mktemp("made")
    assert evaluate(results, out, "--name", "whole") == 0
    assert evaluate(results, out, "--name", "part", "--budget", f"{PART}passes") == 0
    return out


def read(out, name):
    run = records.read(out / name)
    return run, next(iter(run.attacks.values()))


def verdicts(folder):
    """The verdicts by example; ``open`` is there only where a budget ran out."""
    return read_arrays(folder / "examples.npz")


def same(left, right):
    return left.keys() == right.keys() and all((left[key] == right[key]).all() for key in left)


def test_the_record_has_bounds_and_the_truth_lies_between(made):
    run, part = read(made, "part")
    _, whole = read(made, "whole")
    left = part.budgeted
    assert run.status == "ok"
    assert 0 < left.undecided < N
    assert left.least <= whole.robust_accuracy <= part.robust_accuracy
    assert part.robust_accuracy - left.least == pytest.approx(left.undecided / N)
    assert 0 < left.least < part.robust_accuracy
    assert (run.budget.asked, run.budget.ran_out) == (f"{PART}passes", True)
    assert run.budget.passes == part.forwards + part.backwards + N <= PART
    assert run.budget.classified == N
    first, second = left.members
    assert (first.member, second.member) == ("pgd5", "square-40")
    assert first.finished == first.of == round(run.clean_accuracy * N)
    assert 0 < second.finished < second.of == first.of - part.broken_by["pgd5"]
    assert second.of - second.finished == left.undecided
    assert "budget" not in run.config
    whole_run, _ = read(made, "whole")
    assert (whole_run.budget, whole_run.worst_case_least, whole.budgeted) == (None, None, None)


def test_what_is_said_of_an_example_is_the_truth(made):
    part, whole = verdicts(made / "part"), verdicts(made / "whole")
    open_ = part.pop(f"{SERIES}/open")
    for key in whole:
        assert (part[key] == whole[key])[~open_].all(), key
    # Of the others none is called broken.
    assert (part[f"{SERIES}/by"][open_] < 0).all()


def test_bounds_close_in_as_the_budget_grows(results, made, tmp_path):
    _, whole = read(made, "whole")
    ends = []
    for passes in (60, 400, 1000, 1500, 2200):
        assert evaluate(results, tmp_path, "--name", f"b{passes}", f"--budget={passes}passes") == 0
        run, part = read(tmp_path, f"b{passes}")
        ends.append((part.budgeted.least, part.robust_accuracy))
        assert run.budget.passes <= passes
    lower, upper = zip(*ends, strict=True)
    assert sorted(lower) == list(lower)
    assert sorted(upper, reverse=True) == list(upper)
    assert lower[-1] <= whole.robust_accuracy <= upper[-1]
    run, _ = read(tmp_path, "b60")
    assert run.budget.classified == 60
    trust = clean_trust(run)
    assert (trust.trust, trust.unfinished) == ("upper bound", True)
    known = verdicts(tmp_path / "b60")
    assert known["clean/open"].sum() == N - 60
    assert (known["clean/prediction"][known["clean/open"]] == -1).all()
    assert (known[f"{SERIES}/prediction"][known["clean/open"]] == -1).all()
    right = known["clean/share"] > 0
    assert (run.clean_accuracy, trust.found) == (
        right.mean(),
        (right & ~known["clean/open"]).mean(),
    )


def test_passes_give_the_same_on_every_run_in_any_batches(results, made, tmp_path):
    words = [f"--budget={PART}passes", "--batch-size", "7", "--name", "small"]
    assert evaluate(results, tmp_path, *words) == 0
    assert same(verdicts(tmp_path / "small"), verdicts(made / "part"))


def test_more_goes_on_and_ends_with_the_verdicts_of_no_budget(results, made, tmp_path, capsys):
    for passes in (100, 1500, PART):
        assert evaluate(results, tmp_path, f"--budget={passes}passes") == 0
        said = capsys.readouterr()
        assert ("going on with" in said.out + said.err) == (passes > 100)
    (run,) = folders.every(tmp_path)
    assert same(verdicts(tmp_path / run.id), verdicts(made / "part"))  # as if in one go
    assert (tmp_path / run.id / "journal").is_dir()
    assert evaluate(results, tmp_path) == 0
    (run,) = folders.every(tmp_path)
    assert run.budget is None
    assert len(run.resumed) == 3
    assert same(verdicts(tmp_path / run.id), verdicts(made / "whole"))
    assert not (tmp_path / run.id / "journal").exists()
    expected, (found,) = read(made, "whole"), run.attacks.values()
    assert (found.correct, found.forwards, found.broken_by) == (
        expected[1].correct,
        expected[1].forwards,
        expected[1].broken_by,
    )
    assert (found.variant, found.trust, found.budgeted) == ("", expected[1].trust, None)
    assert [each.check for each in run.findings] == [each.check for each in expected[0].findings]


def test_a_budget_that_is_enough_leaves_an_exact_number(results, made, tmp_path):
    assert evaluate(results, tmp_path, "--budget", "1h", "--name", "enough") == 0
    (run, found), (_, whole) = read(tmp_path, "enough"), read(made, "whole")
    assert not run.budget.ran_out
    assert found.budgeted.undecided == 0
    assert all(each.finished == each.of for each in found.budgeted.members)
    assert (found.robust_accuracy, found.trust) == (whole.robust_accuracy, whole.trust)
    assert found.variant == ""
    assert same(verdicts(tmp_path / "enough"), verdicts(made / "whole"))


def test_a_smaller_budget_or_one_of_another_kind_begins_anew(results, tmp_path):
    for words in (["--budget=900passes"], ["--budget=900passes"], ["--budget=300passes"]):
        assert evaluate(results, tmp_path, *words) == 0
    assert len(folders.every(tmp_path)) == 2
    assert evaluate(results, tmp_path, "--budget=1h") == 0
    assert [run.budget.asked for run in folders.every(tmp_path)] == ["900passes", "300passes", "1h"]


def test_an_interrupt_changes_nothing(results, made, tmp_path, monkeypatch):
    moved, calls = Journal.moved, []

    def stop(self, *args):
        calls.append(args)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return moved(self, *args)

    budget = f"--budget={PART}passes"
    monkeypatch.setattr(Journal, "moved", stop)
    assert evaluate(results, tmp_path, budget) == 130
    monkeypatch.setattr(Journal, "moved", moved)
    (run,) = folders.every(tmp_path)
    assert (run.status, run.budget.ran_out) == ("interrupted", False)
    assert evaluate(results, tmp_path, budget) == 0
    (run,) = folders.every(tmp_path)
    found, expected = verdicts(tmp_path / run.id), verdicts(made / "part")
    assert all((found[key] == expected[key]).all() for key in expected)


def test_a_time_stops_it_and_no_budget_ends_it(results, made, tmp_path):
    assert evaluate(results, tmp_path, "--budget", "0.01s") == 0
    (run,) = folders.every(tmp_path)
    assert run.budget.ran_out
    assert run.budget.seconds < 5
    assert run.attacks[SERIES].budgeted.undecided > 0
    assert evaluate(results, tmp_path) == 0
    (run,) = folders.every(tmp_path)
    assert same(verdicts(tmp_path / run.id), verdicts(made / "whole"))


def test_it_is_no_exact_number_anywhere(made, capsys):
    run, part = read(made, "part")
    trust = attack_trust(run, SERIES)
    assert (trust.trust, trust.found, trust.confidence) == ("upper bound", part.budgeted.least, 1.0)
    assert not trust.competes
    assert run.worst_case_trust == "upper bound"
    ends = f"{100 * part.budgeted.least:.2f} to {100 * part.robust_accuracy:.2f} ~"
    for form in ("md", "latex", "terminal"):
        assert main(["report", "--results", str(made), "-f", form]) == 0
        table = capsys.readouterr().out.replace("\\textasciitilde{}", "~").replace(r"\%", "%")
        assert ends in table, form
        assert "the budget ran out" in table, form
        assert "confidence" not in table, form
        assert f"budget {PART}passes" in table, form
    assert main(["report", "--results", str(made), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    (name,) = (key for row in rows for key in row if key.endswith("_found") and row[key])
    assert [row[name] for row in rows if row.get(name)] == [pytest.approx(part.budgeted.least)]
    assert main(["list", "runs", "--results", str(made)]) == 0
    assert "~" in capsys.readouterr().out


def test_a_record_whose_lower_end_is_no_accuracy_is_damaged(made, tmp_path):
    run, part = read(made, "part")
    text = records.write(run, tmp_path).read_text()
    (tmp_path / "run.json").write_text(text.replace(f'"least": {part.least}', '"least": -2.0'))
    with pytest.raises(UserError, match=r"at least: -2\.0 is no accuracy"):
        records.read(tmp_path)


def test_what_is_not_finished_is_not_compared(results, made, tmp_path, capsys):
    for name, passes in (("early", 60), ("later", 80)):
        assert evaluate(results, tmp_path, f"--budget={passes}passes", "--name", name) == 0
    assert evaluate(results, tmp_path, "--name", "whole") == 0
    capsys.readouterr()
    compared = ["compare", "early", "whole", "--results", str(tmp_path)]
    assert main(compared) == 0
    said = capsys.readouterr().out
    assert "not compared, because one of them is not finished on all images (~): clean" in said
    # Nor does it make a clean accuracy unknown that another evaluation knows.
    assert evaluate(results, tmp_path, "--budget=50passes", "--name", "last") == 0
    capsys.readouterr()
    assert main(["report", "--results", str(tmp_path), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    run, whole = read(tmp_path, "whole")
    assert (row["clean"], row.get("clean_found")) == (run.clean_accuracy, None)
    assert row[SERIES] == whole.robust_accuracy


def test_the_screen_has_a_line_for_each_member(results, tmp_path, capsys):
    words = ("--budget=2000passes", "--json")
    attacks = (SERIES, "apgd-t:steps=3,targets=2")
    assert evaluate(results, tmp_path, *words[:1], attacks=attacks) == 0
    said = capsys.readouterr().out
    (run,) = folders.every(tmp_path)
    part, never = run.attacks.values()
    assert f"{part.least:.2%} to {part.robust_accuracy:.2%} ~" in said
    assert "budget 2000passes ran out: " in said
    assert f"clean: {N} of {N} images classified" in said
    for each in part.budgeted.members:
        assert f"{each.member}: finished on {each.finished} of {each.of} images" in said
    assert "finished on 0 of" in said
    assert "0 of 2 restarts or targets on all" in said
    assert never.robust_accuracy == run.clean_accuracy
    assert never.budgeted.least == 0
    assert run.worst_case_least == 0 == worst_trust(run).found
    assert evaluate(results, tmp_path, *words, attacks=attacks) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["budget"]["ran_out"] is True
    assert data["attacks"][SERIES]["found"] == part.budgeted.least
    assert [each["member"] for each in data["attacks"][SERIES]["members"]] == ["pgd5", "square-40"]


def test_checks_cost_a_part_of_what_was_spent_and_compare_finished_attacks(results, tmp_path):
    """An attack that has seen some images only is no evidence that another one is weak."""
    pair = ("pgd5", "pgd-40")
    assert evaluate(results, tmp_path, "--budget=3000passes", attacks=pair, checks=True) == 0
    (run,) = folders.every(tmp_path)
    first, second = run.attacks.values()
    assert first.budgeted.undecided == 0
    assert second.budgeted.undecided > 0
    assert {each.check for each in run.findings if "pgd-40" in each.attacks} == {"budget"}
    assert first.trust != "unchecked"
    assert run.checked is not None
    assert run.control.forwards + run.control.backwards < 3000


def test_a_gate_goes_by_the_lower_end_and_strict_refuses(results, made, tmp_path, capsys):
    _, part = read(made, "part")
    low, high = 100 * part.least, 100 * part.robust_accuracy
    words = [f"--budget={PART}passes", "--name", "x"]
    assert evaluate(results, tmp_path, *words, "--fail-under", f"{low - 0.1:.2f}") == 0
    capsys.readouterr()
    assert evaluate(results, tmp_path, *words, "--fail-under", f"{(low + high) / 2:.2f}") == 4
    assert "not shown to reach" in capsys.readouterr().err
    assert evaluate(results, tmp_path, *words[:1], "--strict", checks=True) == 3
    assert "upper bound" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("attacks", "words", "said"),
    [
        (["pgd5"], ["--sweep", "eps=0,0.1"], "goes without --sweep"),
        ([SERIES], ["--within", "1"], "goes without --within: its confidence"),
        (["pgd5"], ["--certify", "smoothing:sigma=0.2"], "goes without --certify"),
        (["pgd5"], ["--reject-class", "9"], "goes without --reject-class"),
        (["pgd5:target=1"], [], "goes without attack 'pgd5:target=1', which has a target"),
        (["deepfool"], ["--norm", "L2"], "which measures distances"),
        (["universal"], [], "which is fitted to all of its images"),
        (["pgd5", "aa-reference"], [], "'aa-reference', which runs in code"),
    ],
)
def test_what_has_no_bounds_is_refused(results, tmp_path, capsys, attacks, words, said):
    assert evaluate(results, tmp_path / "new", "--budget=1m", *words, attacks=attacks) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert not [*tmp_path.glob("new/*/run.json")]


def test_several_processes_are_refused(results, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("robustbench_cli.distributed.env.world", lambda: 2)
    monkeypatch.setattr("robustbench_cli.commands.evaluate.join_processes", _alone)
    assert evaluate(results, tmp_path / "new", "--budget=1m") == 2
    assert "run it without torchrun" in capsys.readouterr().err


class _alone:
    def __init__(self, device):
        pass

    def __enter__(self):
        from robustbench_cli.distributed.group import ALONE

        return ALONE

    def __exit__(self, *error):
        return None


def test_another_budget_is_one_line(results, tmp_path, capsys):
    assert evaluate(results, tmp_path, "--budget", "10 minutes") == 2
    error = capsys.readouterr().err
    assert "--budget '10 minutes': give a time such as 90s, 10m or 2h" in error
    assert len(error.strip().splitlines()) == 1


def test_python_has_both_ends_and_goes_on(results, tmp_path):
    run = load_run(results / "net")
    x, y = run.test_images(N)

    def call(**options):
        threat = Threat("Linf", 0.08)
        return evaluate_in_memory(run.model, x, y, attacks=[SERIES], threat=threat, **options)

    part = call(budget=f"{PART}passes", out=tmp_path)
    low, high = part.bounds[SERIES]
    assert low < high == part.robust_accuracy[SERIES]
    assert part.trust[SERIES] == "upper bound"
    assert "~" in part.table()
    assert part.verdicts[SERIES]["open"].sum() == round((high - low) * N)
    whole = call(out=tmp_path)
    assert whole.folder == part.folder
    assert whole.bounds == {}
    assert low <= whole.robust_accuracy[SERIES] <= high
    exact = call()
    assert exact.robust_accuracy == whole.robust_accuracy
    assert np.array_equal(exact.broken[SERIES], whole.broken[SERIES])
