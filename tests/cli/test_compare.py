"""``advbench report --compare``: two models, or two recipes over their seeds, image by image."""

import csv
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from robustbench_cli.cli import main
from robustbench_cli.report.paired_tests import mcnemar_p, newcombe
from robustbench_cli.runs import records

FGSM = {"name": "fgsm", "steps": 1}
PGD = {"name": "pgd", "steps": 20}


def first(count, n=100):
    """Right about the first ``count`` of n images."""
    return (np.arange(n) < count) * 1.0


def last(count, n=100):
    """Right about the last ``count`` of n images."""
    return (np.arange(n) >= n - count) * 1.0


@pytest.fixture
def results(tmp_path, trained, judged, kept):
    """One seed of trades and of pgd-at, two of mart, all on the same images."""
    folder = tmp_path / "results"
    for name, seed, clean, pgd in (
        ("trades", 0, first(90), first(60)),
        ("pgd-at", 0, first(95), last(55)),
        ("mart", 0, first(90), first(50)),
        ("mart", 1, first(92), first(54)),
    ):
        parent = trained(name, seed, id=f"{name}-run-{seed}")
        kept(folder, parent)
        judged(folder, parent, clean, {"pgd20": (PGD, pgd)}, id=f"{name}-eval-{seed}")
    return folder


@pytest.fixture
def compare(results, capsys):
    def run(*args):
        assert main(["report", "--results", str(results), "--compare", *args]) == 0
        return capsys.readouterr().out

    return run


@pytest.fixture
def refused(results, capsys):
    def run(*args):
        assert main(["report", "--results", str(results), "--compare", *args]) == 2
        said = capsys.readouterr()
        assert not said.out
        assert said.err.count("\n") == 1
        return said.err.removeprefix("advbench: ").strip()

    return run


def test_the_paired_table_of_two_models(compare):
    """Under the attack images 45 to 59 are right in both; pgd-at loses those it misses clean."""
    clean, pgd, worst = json.loads(compare("trades", "pgd-at", "--format", "json"))
    assert clean["measured"] == "clean"
    counts = ("both_right", "only_first", "only_second", "both_wrong")
    assert [clean[key] for key in counts] == [90, 0, 5, 5]
    assert clean["difference"] == pytest.approx(-0.05)
    assert clean["p"] == mcnemar_p(0, 5) == 0.0625
    assert [pgd[key] for key in counts] == [15, 45, 35, 5]
    assert pgd["difference"] == pytest.approx(0.1)
    assert pgd["p"] == mcnemar_p(45, 35)
    assert (pgd["low"], pgd["high"]) == newcombe(15, 45, 35, 5)
    assert pgd["exact"] is True
    assert (worst["measured"], worst["only_first"]) == ("worst", 45)
    assert pgd["first_runs"] == ["trades-eval-0"]
    assert (pgd["dataset"], pgd["norm"], pgd["eps"], pgd["n"]) == ("mnist", "Linf", 0.3, 100)


def test_on_the_screen(compare):
    lines = compare("trades", "pgd-at").splitlines()
    assert lines[:2] == ["A = trades, small-cnn, seed 0", "B = pgd-at, small-cnn, seed 0"]
    assert "mnist, Linf 0.3, n 100" in lines
    (row,) = (line.split() for line in lines if line.startswith("pgd20"))
    assert row[:7] == ["pgd20", "60.00", "50.00", "15", "45", "35", "5"]
    assert row[7] == "+10.00"
    assert row[-1] == "0.31"
    assert lines[-1].endswith("p: McNemar's exact test")


@pytest.mark.parametrize("format_", ["md", "latex"])
def test_as_a_table_of_a_document(compare, format_):
    out = compare("trades", "pgd-at", "--format", format_)
    (row,) = (line for line in out.splitlines() if line.lstrip("| ").startswith("pgd20"))
    low, high = newcombe(15, 45, 35, 5)
    assert f"+10.00 [{100 * low:+.1f}, {100 * high:+.1f}]" in row


def test_as_csv(compare):
    clean, pgd, _ = csv.DictReader(io.StringIO(compare("trades", "pgd-at", "--format", "csv")))
    assert (clean["measured"], pgd["measured"]) == ("clean", "pgd20")
    assert float(pgd["only_first"]) == 45
    assert float(pgd["p"]) == pytest.approx(mcnemar_p(45, 35))


def test_the_other_way_round_is_the_mirror_image(compare):
    one = json.loads(compare("trades", "mart", "--format", "json"))
    other = json.loads(compare("mart", "trades", "--format", "json"))
    for there, back in zip(one, other, strict=True):
        assert there["difference"] == pytest.approx(-back["difference"])
        assert (there["low"], there["high"]) == pytest.approx((-back["high"], -back["low"]))
        assert there["p"] == pytest.approx(back["p"])
        assert there["only_first"] == pytest.approx(back["only_second"])


def test_a_name_stands_for_all_seeds_and_a_run_for_itself(compare):
    _, seeds, _ = json.loads(compare("mart", "trades", "--format", "json"))
    assert seeds["first_seeds"] == [0, 1]
    assert seeds["first_accuracy"] == pytest.approx(0.52)
    assert not seeds["exact"]
    assert seeds["only_second"] == pytest.approx(8)
    for name in ("mart-run-1", "mart-eval-1", "mart-run-1"[1:]):
        _, one, _ = json.loads(compare(name, "trades", "--format", "json"))
        assert (one["first_seeds"], one["first_accuracy"]) == ([1], 0.54)
    _, two, _ = json.loads(compare("mart-run-0", "mart-run-1", "--format", "json"))
    assert (two["only_first"], two["only_second"], two["exact"]) == (0, 4, True)


def test_a_path_means_its_run(results, compare):
    _, one, _ = json.loads(
        compare(
            str(results / "mart-eval-1"), str(results / "mart-run-0" / "run.json"), "-f", "json"
        )
    )
    assert (one["first_runs"], one["second_runs"]) == (["mart-eval-1"], ["mart-eval-0"])


def test_other_attacks_and_their_worst_cases_are_not_compared(
    results, trained, judged, kept, compare
):
    parent = trained("alp", 0, id="alp-run")
    kept(results, parent)
    attacks = {"pgd20": (PGD | {"step": 0.1}, first(70)), "fgsm": (FGSM, first(80))}
    judged(results, parent, first(90), attacks, id="alp-eval")
    (only,) = json.loads(compare("alp", "trades", "--format", "json"))
    assert only["measured"] == "clean"


def test_what_cannot_be_compared_costs_one_line(results, trained, judged, kept, refused):
    for name, changes in (("alp", {"eps": 0.1}), ("clp", {"sha": "other"}), ("vat", {})):
        parent = trained(name, 0, id=f"{name}-run")
        kept(results, parent)
        n = 50 if name == "vat" else 100
        judged(results, parent, first(40, n), {"pgd20": (PGD, first(30, n))}, **changes)
    assert refused("alp", "trades") == (
        "--compare: not the same test images, threat and n: 'alp' on mnist, Linf 0.1, n 100, "
        "'trades' on mnist, Linf 0.3, n 100"
    )
    assert "n 50" in refused("vat", "trades")
    assert "'clp' on mnist:test=other" in refused("clp", "trades")
    assert "did you mean 'trades'" in refused("tardes", "mart")
    assert "ambiguous: mart-run-0, mart-run-1" in refused("mart-run", "trades")
    assert refused("trades", "trades-run-0").endswith("both mean the same evaluations")
    assert refused("trades", "mart", "--sort", "clean") == "--compare goes without --sort"
    assert "no finished evaluation" in _without_evaluation(results, trained, kept, refused)


def _without_evaluation(results, trained, kept, refused):
    kept(results, trained("bare", 0, id="bare-run"))
    return refused("bare-run", "trades")


def test_missing_verdicts_cost_one_line(results, refused):
    (results / "trades-eval-0" / "examples.npz").unlink()
    assert refused("trades", "mart") == "examples.npz of 'trades-eval-0' is missing"


def test_verdicts_about_other_labels_are_refused(results, trained, judged, kept, refused):
    parent = trained("alp", 0, id="alp-run")
    kept(results, parent)
    labels = np.arange(100)[::-1] % 10
    judged(results, parent, first(90), {"pgd20": (PGD, first(60))}, labels=labels, id="alp-eval")
    assert "hold other labels" in refused("alp", "trades")


@pytest.mark.parametrize(("trust", "compared"), [("upper bound", True), ("withheld", False)])
def test_numbers_that_are_not_sound_are_marked_or_left_out(results, compare, trust, compared):
    folder = results / "trades-eval-0"
    run = records.read(folder)
    outcome = replace(run.attacks["pgd20"], trust=trust)
    records.write(
        replace(run, attacks={"pgd20": outcome}, worst_case_trust=trust, checked=None), folder
    )
    lines = json.loads(compare("trades", "pgd-at", "--format", "json"))
    assert [line["measured"] for line in lines] == ["clean", "pgd20", "worst"][
        : 3 if compared else 1
    ]
    out = compare("trades", "pgd-at", "--format", "md")
    if compared:
        assert lines[1]["first_trust"] == "upper bound"
        assert "| ≤60.00 |" in out
        assert "an upper bound: something hides the truth" in out
    else:
        assert "60.00" not in out
        assert "not compared, because it means nothing for one of them: pgd20, worst" in out


def test_no_comparison_imports_torch(results, without_torch):
    done = without_torch("report", "--results", results, "--compare", "trades", "mart")
    assert done.returncode == 0, done.stderr


@pytest.fixture
def images(results, capsys):
    """Return what ``advbench compare`` prints."""

    def run(*words):
        assert main(["compare", *words, "--results", str(results)]) == 0
        return capsys.readouterr().out

    return run


def test_the_images_that_differ_are_those_of_the_paired_table(images):
    found = json.loads(images("trades", "pgd-at", "--json"))
    for line in found:
        assert len(line["images"]) == line["only_first"] + line["only_second"]
    _, pgd, _ = found
    first, last = pgd["images"][0], pgd["images"][-1]
    assert (first["index"], first["first_right"], first["second_right"]) == (0, 1, 0)
    assert (last["index"], last["first_right"], last["second_right"]) == (94, 0, 1)
    assert first["first_prediction"] == first["label"] != first["second_prediction"]
    assert first["name"] is None


def test_a_page_names_a_few_images_and_a_file_all_of_them(images, tmp_path):
    shown = images("trades", "pgd-at", "--attack", "pgd20", "--limit", "3", "-f", "md")
    rows = [line for line in shown.splitlines() if re.match(r"\| pgd20 \| \d+ \| \d+ \| \d", line)]
    assert len(rows) == 3
    assert "and 77 under pgd20" in shown
    file = tmp_path / "images.csv"
    images("trades", "pgd-at", "--attack", "pgd20", "--out", str(file))
    assert len([*csv.DictReader(io.StringIO(file.read_text()))]) == 80


def test_images_are_named_by_their_files_where_they_have_any(images, results):
    from robustbench_cli.evaluation.journal import read_arrays, write_arrays

    for folder in results.glob("*-eval-0"):
        run = records.read(folder)
        arrays = read_arrays(folder / "examples.npz")
        names = np.array([f"cats/{i}.png\x1b" for i in range(100)])
        write_arrays(
            folder / "examples.npz", {**arrays, "name": names, "index": 2 * arrays["index"]}
        )
        records.write(replace(run, examples=records.filed(folder / "examples.npz")), folder)
    line = json.loads(images("trades", "pgd-at", "--json"))[1]
    assert (line["images"][1]["index"], line["images"][1]["name"]) == (2, "cats/1.png\x1b")
    shown = images("trades", "pgd-at")
    assert "cats/1.png" in shown
    assert "\x1b" not in shown


def test_over_several_seeds_an_image_differs_where_most_of_them_do(images):
    (line,) = [
        x for x in json.loads(images("trades", "mart", "--json")) if x["measured"] == "pgd20"
    ]
    # trades is right about 60, mart's seeds about 50 and 54: half of the seeds is enough.
    assert [each["index"] for each in line["images"]] == [*range(50, 60)]
    assert [each["second_right"] for each in line["images"]] == [0.5] * 4 + [0] * 6


def test_an_attack_that_is_not_measured_for_both_is_refused(results, capsys):
    words = ["compare", "trades", "pgd-at", "--attack", "pgd2", "--results", str(results)]
    assert main(words) == 2
    assert "not measured for both; did you mean 'pgd20'" in capsys.readouterr().err


@pytest.fixture
def attacked(results, trained, evaluated, kept):
    """Write a run of ``advbench attack`` with its images: right about the first 90 and 60."""
    parent = trained("alp", 0, id="alp-run")
    kept(results, parent)
    label = np.arange(100) % 10
    arrays = {"y": label, "clean": (label + 1 - first(90)) % 10, "index": np.arange(100)}
    arrays |= {"adversarial": (label + 1 - first(60)) % 10, "norm": np.zeros(100)}

    def write(id, **changes):
        run = evaluated(parent, {"pgd20": (PGD, 60)}, kind="attack", id=id, **changes)
        kept(results, run)
        path = results / id / "adversarial.npz"
        np.savez(path, **{key: np.asarray(value, np.int64) for key, value in arrays.items()})
        run = replace(run, examples=records.filed(path))
        records.write(run, results / id)
        return run

    return write


def test_a_run_of_attack_is_compared_with_an_evaluation(attacked, compare, images):
    attacked("kept-images")
    _, pgd, _ = json.loads(compare("kept-images", "pgd-at", "-f", "json"))
    assert (pgd["only_first"], pgd["only_second"], pgd["first_accuracy"]) == (45, 35, 0.6)
    # A training run that was not evaluated stands for its attacks.
    _, same, _ = json.loads(compare("alp-run", "pgd-at", "-f", "json"))
    assert same["first_runs"] == ["kept-images"]
    assert json.loads(images("kept-images", "trades", "--json"))[1]["images"] == []


def test_images_that_are_not_those_of_the_record_are_refused(attacked, results, refused):
    run = attacked("kept-images")
    outcome = replace(run.attacks["pgd20"], correct=59, robust_accuracy=0.59)
    records.write(replace(run, attacks={"pgd20": outcome}), results / run.id)
    said = refused("kept-images", "trades")
    assert said == "adversarial.npz of 'kept-images' does not add up to its record"
    (results / run.id / "adversarial.npz").write_bytes(b"PK")
    assert "is not the file that its record names" in refused("kept-images", "trades")
    (results / run.id / "adversarial.npz").unlink()
    assert refused("kept-images", "trades") == "adversarial.npz of 'kept-images' is missing"


def test_a_run_without_verdicts_is_called_what_it_is(attacked, results, refused):
    attacked("kept-images", status="failed")
    assert refused("kept-images", "trades").endswith("it has no finished evaluation or attack")
    run = replace(records.read(results / "trades-run-0"), kind="audit", id="the-audit")
    (results / run.id).mkdir()
    records.write(run, results / run.id)
    for name in ("the-audit", "e-audit", str(results / "the-audit")):
        assert refused(name, "trades") == (
            f"--compare {name!r}: 'the-audit' is a run of advbench audit; what can be compared are "
            "evaluations, runs of advbench attack, and what was trained"
        )
