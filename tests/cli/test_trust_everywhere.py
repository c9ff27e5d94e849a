"""Wherever a number is shown, its mark is; and one that means nothing is shown nowhere."""

import csv
import io
import json
import re
from dataclasses import replace

import pytest

from robustbench_cli.api.result import EvaluationResult
from robustbench_cli.cli import main
from robustbench_cli.cli.detect import print_detections
from robustbench_cli.cli.eval_summary import print_evaluation
from robustbench_cli.report.robustness_table import rows
from robustbench_cli.runs import records
from robustbench_cli.runs.outcomes import Detection
from robustbench_cli.runs.trust import Finding

N = 1000
PGD = {
    "name": "pgd",
    "steps": 20,
    "step": 0.25,
    "restarts": 1,
    "start": "uniform",
    "loss": "ce",
    "last_iterate": False,
}
FGSM = {"name": "fgsm"}
VOID = {"clean": 913, "pgd20": 617, "fgsm": 719, "worst": 557}
"""Right answers of the withheld model; no other number of these records looks like them."""
NEVER = re.compile("|".join(rf"(?<!\d)({x}|0\.{x}|{x / 10:g})(?!\d)" for x in VOID.values()))
LIES = Finding(
    check="secant",
    severity="warning",
    message="gradients_lie & mislead 5% of us",
    attacks=["pgd20"],
    accuracy=0.127,
)
BATCH = Finding(check="neighbours", severity="error", message="the batch matters", clean=True)
NOTHING = {"clean_trust": "withheld", "worst_case_trust": "withheld", "findings": [BATCH]}
BOUND = {"worst_case_trust": "upper bound", "findings": [LIES]}
FORMATS = ("terminal", "md", "latex", "csv", "json")


@pytest.fixture
def results(tmp_path, trained, evaluated, kept, monkeypatch):
    """Four models: sound, masked (an upper bound), void (withheld), and one that nobody checked;
    each under two attacks, on the images of another, in a sweep, and beside a detector."""
    monkeypatch.setenv("COLUMNS", "300")
    folder = tmp_path / "results"
    models = {name: trained(name, id=name) for name in ("sound", "masked", "void", "bare")}
    kept(folder, *models.values())
    right = {
        "sound": {"clean": 990, "pgd20": 500, "fgsm": 600, "worst": 490},
        "masked": {"clean": 980, "pgd20": 834, "fgsm": 700, "worst": 690},
        "void": VOID,
        "bare": {"clean": 950, "pgd20": 428, "fgsm": 530, "worst": 420},
    }
    trusts = {
        "sound": ("sound", "sound", {}),
        "masked": ("upper bound", "sound", BOUND),
        "void": ("withheld", "withheld", NOTHING),
        "bare": ("unchecked", "unchecked", {}),
    }
    for name, parent in models.items():
        of_pgd, of_fgsm, more = trusts[name]
        count = right[name]
        if name == "bare":
            more = {"clean_trust": "unchecked", "worst_case_trust": "unchecked", "checked": None}

        def judged(ident, attacks, *, parent=parent, count=count, more=more, **about):
            counts = {"n": N, "clean": count["clean"], "worst": count["worst"]}
            run = evaluated(parent, attacks, eps=8 / 255, id=ident, **counts, **more, **about)
            unwanted = {"checks": False} if parent.id == "bare" else {}
            return replace(run, config={**run.config, **unwanted})

        pgd, swept = {"trust": of_pgd}, {"trust": of_pgd, "eps": 0.01}
        asked = {"pgd20": (PGD, count["pgd20"], pgd)}
        both = {**asked, "fgsm": (FGSM, count["fgsm"], {"trust": of_fgsm})}
        over_eps = {"pgd20@eps=0.01": (PGD, count["pgd20"], swept)}
        run = judged(f"{name}-eval", both)
        found = Detection(
            detector="knn",
            params={},
            fitted="x",
            attack="pgd20",
            population="adversarial",
            wrong=N - count["pgd20"],
            right=count["pgd20"],
            auroc=count["fgsm"] / N,
        )
        kept(
            folder,
            run,
            judged(f"{name}-moved", asked, source=models["sound"]),
            judged(f"{name}-swept", over_eps, sweep={"eps": [0.01]}),
            replace(run, id=f"{name}-detect", kind="detect", detections=[found]),
        )
    return folder


@pytest.fixture
def printed(results, capsys):
    """What a command prints, in which no number that means nothing may stand."""

    def run(*args):
        assert main([*args, "--results", str(results)]) == 0
        said = capsys.readouterr().out
        assert not NEVER.search(said), NEVER.search(said)[0]
        return said

    return run


SIGNS = {
    "terminal": ("≤83.40 (12.70 found)", "42.80°", "secant: gradients_lie & mislead 5% of us"),
    "md": ("≤83.40 (12.70 found)", "42.80°", "secant: gradients_lie & mislead 5% of us"),
    "latex": (
        r"$\leq$83.40 (12.70 found)",
        r"42.80$^\circ$",
        r"secant: gradients\_lie \& mislead 5\% of us",
    ),
}


@pytest.mark.parametrize("format_", SIGNS)
@pytest.mark.parametrize("shape", [[], ["--sweeps"], ["--transfer"], ["--intervals"]])
def test_marks_stand_at_the_cell_with_a_legend(printed, format_, shape):
    said = printed("report", "--format", format_, *shape)
    bound, unchecked, reason = SIGNS[format_]
    if "--intervals" in shape:
        bound, unchecked = bound.partition("83.40")[0] + "83.40 [", "]" + unchecked[5:]
    assert bound in said
    assert unchecked in said
    assert "withheld" in said
    below = said[said.rindex("an upper bound: something hides the truth") :]
    assert "withheld = the number means nothing and is not shown" in below
    assert ("(-{}-no-checks)" if format_ == "latex" else "(--no-checks)") in below
    assert reason in below
    assert "neighbours: the batch matters" in below


def test_data_have_the_trust_beside_each_number(printed):
    table = {
        row["defense"]: row for row in csv.DictReader(io.StringIO(printed("report", "-f", "csv")))
    }
    void, masked = table["void"], table["masked"]
    assert [
        void[f"{name}{end}"] for name in ("clean", "pgd20", "fgsm") for end in ("", "_std")
    ] == ([""] * 6)
    assert {void[f"{name}_trust"] for name in ("clean", "pgd20", "fgsm")} == {"withheld"}
    assert (masked["pgd20"], masked["pgd20_trust"], masked["pgd20_found"]) == (
        "0.834",
        "upper bound",
        "0.127",
    )
    assert (masked["fgsm_trust"], table["bare"]["clean_trust"]) == ("sound", "unchecked")
    objects = {row["defense"]: row for row in json.loads(printed("report", "-f", "json"))}
    assert (objects["void"]["pgd20"], objects["void"]["correct"]) == (None, {})
    assert objects["masked"]["pgd20_found"] == 0.127
    (finding,) = objects["masked"]["findings"]
    assert (finding["columns"], finding["check"]) == (["pgd20"], "secant")
    (finding,) = objects["void"]["findings"]
    assert (finding["columns"], finding["severity"]) == (["clean", "pgd20", "fgsm"], "error")


@pytest.mark.parametrize("format_", ["csv", "json"])
def test_data_of_a_transfer_have_it_too(printed, format_):
    said = printed("report", "--transfer", "--format", format_)
    found = json.loads(said) if format_ == "json" else csv.DictReader(io.StringIO(said))
    pairs = {(line["source"], line["target"]): line for line in found}
    void, masked = pairs["sound", "void"], pairs["sound", "masked"]
    assert (void["robust_accuracy"] or None, void["clean"] or None) == (None, None)
    assert (void["robust_accuracy_trust"], void["clean_trust"]) == ("withheld", "withheld")
    assert masked["robust_accuracy_trust"] == "upper bound"
    assert float(masked["robust_accuracy_found"]) == 0.127


def test_only_what_is_sound_can_be_best(results, printed):
    ranked = [
        row["defense"] for row in json.loads(printed("report", "-f", "json", "--sort", "pgd20"))
    ]
    assert ranked[-1] == "void"
    ranked = json.loads(printed("report", "-f", "json", "--sort", "-pgd20"))
    assert ranked[-1]["defense"] == "void"
    runs = [records.read(file.parent) for file in sorted(results.glob("*/run.json"))]
    by_name = {row.facts["defense"].text: row for row in rows(runs)}
    compete = {name: row.cells["pgd20"].competes for name, row in by_name.items()}
    assert compete == {"sound": True, "masked": False, "void": False, "bare": True}


def test_lists_and_pages_of_runs(printed):
    said = printed("list", "runs")
    for words in ("pgd20 ≤83.40% (12.70% found)", "clean withheld  pgd20 withheld", "42.80%°"):
        assert words in said
    assert "≤83.40% (12.70% found)" in printed("show", "masked-eval")
    assert "error: neighbours: the batch matters" in printed("show", "void-eval")
    assert "checks: none (--no-checks)" in printed("show", "bare-eval")
    assert "pgd20 knn (adversarial) withheld" in printed("show", "void-detect")
    assert "pgd20 knn (adversarial) 70.00% (≤)" in printed("show", "masked-detect")


@pytest.mark.parametrize("show", [print_evaluation, print_detections])
def test_the_summary_of_an_evaluation(results, capsys, show):
    said = {}
    for name in ("masked", "void", "bare"):
        show(results / f"{name}-detect")
        said[name] = capsys.readouterr().out
    assert "≤83.40% (12.70% found)" in said["masked"]
    assert "42.80%°" in said["bare"]
    assert "withheld" in said["void"]
    assert not NEVER.search(said["void"])


def test_the_table_in_python(results):
    run = records.read(results / "void-eval")
    fields = dict.fromkeys(EvaluationResult.__dataclass_fields__)
    shown = repr(EvaluationResult(**{**fields, "record": run}))
    assert "withheld" in shown
    assert not NEVER.search(shown)


def test_a_page_of_html_marks_numbers_and_shows_none_that_means_nothing(results, capsys):
    pytest.importorskip("matplotlib")
    assert main(["report", "--format", "html", "--results", str(results)]) == 0
    # Digits in outlines of pictures are no numbers.
    text = re.sub(r"<(svg|style|script)\b.*?</\1>", "", capsys.readouterr().out, flags=re.S)
    for said in ("≤83.40 [", "(12.70 found)", "°", "withheld: the number means nothing"):
        assert said in text
    assert "gradients_lie &amp; mislead 5% of us" in text
    assert not NEVER.search(text), NEVER.search(text)[0]


@pytest.mark.parametrize("arguments", [["eps"], ["tradeoff:attack=pgd20"]])
def test_figures_mark_bounds_and_say_what_is_not_drawn(results, arguments, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from robustbench_cli.figures import _style

    pages = []
    monkeypatch.setattr(_style, "save_figure", lambda paint, *files: pages.append(paint()) or [])
    out = ["--out", str(tmp_path / "a.png"), "--results", str(results), "--quiet"]
    assert main(["plot", *arguments, *out]) == 0
    (page,) = pages
    title = page.legends[0].get_title().get_text()
    assert "↓ an upper bound: the truth is lower" in title
    assert "° some numbers were not checked" in title
    assert "not drawn: 1 number(s) that mean nothing" in title
    labels = {text.get_text() for text in page.legends[0].get_texts()}
    assert any("masked" in label for label in labels)
    heights = [y for axes in page.axes for line in axes.get_lines() for y in line.get_ydata()]
    assert any(abs(y - 83.4) < 1e-9 for y in heights)
    assert not any(abs(y - x / 10) < 1e-9 for y in heights for x in VOID.values())
    assert sum(bool(text.arrow_patch) for axes in page.axes for text in axes.texts) == 1


def test_the_curves_of_report_leave_out_what_means_nothing(results, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    for kept in ("sound", "masked", "bare"):
        (results / f"{kept}-swept" / "run.json").unlink()
    assert main(["report", "--plot", str(tmp_path / "a"), "--results", str(results)]) == 2
    assert "every number of these sweeps is withheld" in capsys.readouterr().err


TRADES = {
    "defense": {"trades": {"name": "trades", "steps": 40, "step": 1 / 30, "beta": 6.0}},
    "dataset": {"name": "mnist"},
    "threat": {"norm": "Linf", "eps": 0.3},
    "train": {"epochs": 6, "limit": 0},
}
PGD40 = {"name": "pgd", "steps": 40, "step": 1 / 30, "start": "uniform", "last_iterate": False}
SAID = {
    "terminal": ("≤83.40 (12.70 found)", "(≤)"),
    "md": ("≤83.40 (12.70 found)", "(≤)"),
    "latex": (r"$\leq$83.40 (12.70 found)", r"($\leq$)"),
}


@pytest.fixture
def beside(tmp_path, trained, evaluated, kept, printed):
    """The table of a paper with an accuracy of ours beside it."""

    def run(format_, right, **changes):
        model = trained(id="mine", **TRADES)
        asked = {"pgd40": (PGD40, right, {"trust": changes.pop("trust")})}
        kept(tmp_path / "ours", model, evaluated(model, asked, n=N, clean=990, **changes))
        words = ["--paper", "trades", "--dataset", "mnist", "--format", format_]
        assert main(["report", *words, "--results", str(tmp_path / "ours")]) == 0

    return run


@pytest.mark.parametrize("format_", SAID)
def test_a_bound_beside_a_paper_s_claim(beside, format_, capsys):
    lies = replace(LIES, attacks=["pgd40"])
    beside(format_, 834, trust="upper bound", findings=[lies])
    said = capsys.readouterr().out
    for words in (*SAID[format_], "an upper bound: something hides", "secant: gradients"):
        assert words in said


@pytest.mark.parametrize("format_", [*SAID, "csv", "json"])
def test_a_number_that_means_nothing_stands_beside_no_claim(beside, format_, capsys):
    beside(format_, 617, trust="withheld", **NOTHING)
    said = capsys.readouterr().out
    assert "withheld" in said
    assert not NEVER.search(said)


def test_a_claim_has_the_trust_in_ours_as_data(beside, capsys):
    beside("json", 834, trust="upper bound", findings=[replace(LIES, attacks=["pgd40"])])
    found = [line for line in json.loads(capsys.readouterr().out) if line["ours"] is not None]
    marked = [line for line in found if line["ours_trust"] == "upper bound"]
    assert {(round(line["ours"], 6), line["ours_found"]) for line in marked} == {(83.4, 12.7)}
