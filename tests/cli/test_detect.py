"""``advbench detect`` from training to the figures, and its mistakes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score

from robustbench_cli.cli import main
from robustbench_cli.runs import folders, records

SMALL = ["--set", "train.limit=400", "--set", "train.probe=20", "--set", "model.width=4"]
DETECTORS = ("gaussian", "gaussian:score=posterior", "knn:k=9", "softmax")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A net that was trained for two epochs, and every detector fitted on it."""
    out = tmp_path_factory.mktemp("detect") / "results"
    train = ["train", "standard", "--epochs", "2", "--name", "net", "--quiet", *SMALL]
    assert main([*train, "--out", str(out)]) == 0
    for name in DETECTORS:
        assert main(["detect", "fit", name, "--run", "net", "--out", str(out), "--quiet"]) == 0
    return out


@pytest.fixture(scope="module")
def judged(results):
    """The folder of an evaluation of all of them, under two attacks."""
    chosen = ["--attack", "pgd5", "--attack", "fgsm", "--eps", "0.1", "--n", "120"]
    command = ["detect", "eval", "--run", "net", *chosen, "--name", "judged", "--quiet"]
    assert main([*command, "--out", str(results)]) == 0
    return results / "judged"


def test_a_fit_leaves_tensors_and_a_record(results):
    net = records.read(results / "net")
    fitted = [run for run in folders.every(results) if run.fitted]
    assert [next(iter(run.config["detector"])) for run in fitted[:4]] == list(DETECTORS)
    for run in fitted[:4]:
        assert (run.kind, run.status, run.parent) == ("detect", "ok", "net")
        assert run.weights == net.checkpoint.sha256
        path = results / run.id / run.fitted["file"]
        assert records.sha256(path) == run.fitted["sha256"]
        assert sorted(each.name for each in path.parent.glob("[!.]*")) == [path.name, "run.json"]
    tensors = load_file(results / fitted[0].id / "detector.safetensors")
    assert set(tensors) == {"means", "log_shares", "factor"}
    assert tensors["means"].shape == (10, 128)
    assert load_file(results / fitted[3].id / "detector.safetensors") == {}


def test_every_detector_is_scored_under_every_attack_on_both_populations(judged):
    run = records.read(judged)
    assert (run.kind, run.n) == ("detect", 120)
    assert run.config["threat"]["eps"] == 0.1
    found = [(each.attack, each.detector, each.population) for each in run.detections]
    assert found == [
        (attack, detector, population)
        for attack in ("pgd5", "fgsm")
        for detector in DETECTORS
        for population in ("adversarial", "clean+adversarial")
    ]
    params = run.detections[2].params
    assert params == {"name": "gaussian", "score": "posterior", "ridge": 1e-3}


def test_the_figures_are_those_of_the_file_beside_them(judged):
    run = records.read(judged)
    assert records.sha256(judged / run.scores["file"]) == run.scores["sha256"]
    scores, examples = np.load(judged / "scores.npz"), np.load(judged / "examples.npz")
    assert (scores["clean/prediction"] == examples["clean/prediction"]).all()
    for each in run.detections:
        parts = [each.attack] if each.population == "adversarial" else ["clean", each.attack]
        wrong = np.concatenate([scores[f"{p}/prediction"] != scores["label"] for p in parts])
        suspicion = np.concatenate([scores[f"{p}/{each.detector}"] for p in parts])
        assert (each.wrong, each.right) == (wrong.sum(), (~wrong).sum())
        assert each.auroc == pytest.approx(roc_auc_score(wrong, suspicion))
    for attack, outcome in run.attacks.items():
        # What was wrong before stays as it is; what withstood is right.
        assert (scores[f"{attack}/prediction"] == scores["label"]).sum() == outcome.correct


def test_the_model_that_rejects_what_is_flagged_is_counted_by_hand(judged):
    """At 1 and 5 % of false positives: an error is a success only where it is not flagged."""
    run, scores = records.read(judged), np.load(judged / "scores.npz")
    right = scores["clean/prediction"] == scores["label"]
    for each in run.detections:
        if each.population == "adversarial":
            assert each.points == []
            continue
        assert [point.fpr for point in each.points] == [0.01, 0.05]
        clean, under = (scores[f"{part}/{each.detector}"] for part in ("clean", each.attack))
        errors = scores[f"{each.attack}/prediction"] != scores["label"]
        for point in each.points:
            may_flag = int(point.fpr * 120)
            accepted = sorted(clean)[
                : 120 - may_flag
            ]  # ties with the last of them are accepted, too
            flagged_clean, flagged = (part > accepted[-1] for part in (clean, under))
            between = (under > accepted[-1]) & (under < clean[flagged_clean].min(initial=np.inf))
            if between.any():
                continue  # the threshold is somewhere between the two: not told by this
            assert point.flagged == pytest.approx(flagged_clean.mean())
            kept = right & ~flagged_clean
            assert point.clean_accuracy == pytest.approx(kept.mean())
            assert point.detected == pytest.approx(flagged[errors].mean())
            assert point.robust_accuracy == pytest.approx((kept & (flagged | ~errors)).mean())


def test_a_honeypot_from_training_to_robust_accuracy(tmp_path, capsys):
    """Trapdoors are kept with the run, and a detector is fitted on them later."""
    out = ["--out", str(tmp_path), "--quiet"]
    train = ["train", "honeypot:mask=0.5", "--epochs", "2", "--name", "trapped", *SMALL]
    assert main([*train, *out]) == 0
    kept = load_file(tmp_path / "trapped" / "aids.safetensors")
    assert {name: tuple(t.shape) for name, t in kept.items()} == {
        "Honeypot.trapdoor_masks": (10, 1, 8, 8),
        "Honeypot.trapdoor_patterns": (10, 1, 8, 8),
    }
    fit = ["detect", "fit", "trapdoor", "--run", "trapped", "--name", "guard"]
    assert main([*fit, *out]) == 0
    tensors = load_file(tmp_path / "guard" / "detector.safetensors")
    assert tensors["signatures"].shape == (10, 128)
    evaluate = ["eval", "--run", "trapped", "--detector", "guard", "--fpr", "0.05", "--eps", "0.1"]
    attacks = ["--attack", "signature:steps=2,restarts=1", "--n", "20", "--no-checks"]
    assert main([*evaluate, *attacks, *out, "--name", "judged"]) == 0
    run = records.read(tmp_path / "judged")
    assert (run.rejection.kind, run.rejection.detector) == ("detector", "trapdoor")
    (tmp_path / "trapped" / "aids.safetensors").write_bytes(b"nothing")
    assert "aids.safetensors' is damaged" in fails(fit[:5], tmp_path, capsys)


def test_attacks_go_on_to_the_surest_error(results, judged, tmp_path):
    """An evaluation of accuracy stops at the first: that would be the easiest error to see."""
    evaluated = ["eval", "--run", "net", "--attack", "pgd5", "--eps", "0.1", "--n", "120"]
    assert main([*evaluated, "--out", str(results), "--name", "usual", "--quiet"]) == 0
    usual, here = (records.read(results / name) for name in ("usual", "judged"))
    assert here.attacks["pgd5"].correct == usual.attacks["pgd5"].correct
    assert here.attacks["pgd5"].backwards > usual.attacks["pgd5"].backwards
    assert "detections" in json.loads((judged / "run.json").read_text())


def test_the_tables_name_population_and_counts(results, judged, capsys):
    # Two epochs leave a net whose numbers the checks may withhold.
    chosen = ["--attack", "fgsm", "--detector", "softmax", "--n", "50", "--quiet", "--no-checks"]
    command = ["detect", "eval", "--run", "net", *chosen, "--out", str(results)]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    run = records.read(Path(lines[-1]))
    first, second = run.detections
    for each in (first, second):
        figures = f"{each.auroc:.2%}°", str(each.wrong), str(each.right)
        words = ["fgsm", "softmax", each.population, *figures]
        assert words in [line.split() for line in lines]
    assert main(["show", str(results / run.id)]) == 0
    assert f"fgsm softmax (adversarial) {first.auroc:.2%}°" in capsys.readouterr().out
    assert main(["list", "runs", "--results", str(results)]) == 0
    assert "detect" in capsys.readouterr().out


def test_it_is_listed_and_explained(capsys):
    assert main(["list", "detectors"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("gaussian", "knn<k>", "msp"))
    assert main(["show", "knn20"]) == 0
    out = capsys.readouterr().out
    assert "advbench detect fit knn20" in out
    assert "https://arxiv.org/abs/1803.04765" in out


def test_only_the_latest_fit_counts(results, capsys):
    """Of the same detector on the same weights; another spelling is no other detector."""
    again = ["detect", "fit", "knn9", "--run", "net", "--out", str(results), "--quiet"]
    assert main([*again, "--name", "again"]) == 0
    chosen = ["--attack", "fgsm", "--n", "20", "--detector", "knn:k=9", "--detector", "knn9"]
    assert main(["detect", "eval", "--run", "net", *chosen, "--out", str(results), "-q"]) == 0
    run = records.read(Path(capsys.readouterr().out.splitlines()[-1]))
    assert {each.fitted for each in run.detections} == {
        records.read(results / "again").fitted["sha256"]
    }
    assert len(run.detections) == 2


def fails(args, results, capsys):
    """The one line on standard error; nothing is left behind."""
    before = sorted(results.iterdir())
    capsys.readouterr()
    assert main([*args, "--out", str(results), "--quiet"]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.count("\n") == 1
    assert sorted(results.iterdir()) == before
    return err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["fit", "gausian", "--run", "net"], "did you mean 'gaussian'"),
        (["fit", "gaussian", "--run", "nett"], "no train run 'nett'"),
        (["fit", "trapdoor", "--run", "net"], "trained with trapdoors: advbench train honeypot"),
        (["fit", "gaussian:ridge=-1", "--run", "net"], "'ridge'"),
        (["eval", "--run", "net"], "Missing option '--attack'"),
        (["eval", "--run", "net", "--attack", "pdg20"], "did you mean 'pgd'"),
        (["eval", "--run", "net", "--attack", "fgsm", "--detector", "knn"], "fit it first: advben"),
        (["eval", "--run", "net", "--attack", "fgsm", "--detector", "kn"], "did you mean 'knn'"),
        (["eval", "--run", "net", "--attack", "fgsm", "--n", "501"], "the test split has 500"),
        (["eval", "--run", "net", "--attack", "fgsm", "--set", "detector=knn"], "--set detector"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(args, message, results, capsys):
    assert message in fails(["detect", *args], results, capsys)


def test_a_detector_that_is_not_there_or_damaged_is_named(results, tmp_path, capsys):
    out = tmp_path / "results"
    shutil.copytree(results / "net", out / "net")
    command = ["detect", "eval", "--run", "net", "--attack", "fgsm", "--n", "20"]
    assert "fit one first: advbench detect fit gaussian --run net" in fails(command, out, capsys)
    fit = ["detect", "fit", "softmax", "--run", "net", "--name", "mine", "--quiet"]
    assert main([*fit, "--out", str(out)]) == 0
    (out / "mine" / "detector.safetensors").write_bytes(b"nothing")
    assert "is missing, damaged or was replaced" in fails(command, out, capsys)


def test_other_weights_need_another_fit(results, tmp_path, capsys):
    train = ["train", "standard", "--epochs", "1", "--name", "other", "--quiet", *SMALL]
    out = tmp_path / "results"
    shutil.copytree(results, out)
    assert main([*train, "--out", str(out)]) == 0
    command = ["detect", "eval", "--run", "other", "--attack", "fgsm", "--n", "20"]
    assert "is fitted on other" in fails(command, out, capsys)


def test_several_processes_are_refused(results, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    command = ["detect", "eval", "--run", "net", "--attack", "fgsm", "--n", "20"]
    assert "without torchrun" in fails(command, results, capsys)
