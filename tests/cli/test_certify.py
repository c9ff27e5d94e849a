"""``advbench eval --certify`` from training to the table, and its mistakes."""

import json
import math
from pathlib import Path

import pytest

from robustbench_cli.certificates.smoothing import Smoothing
from robustbench_cli.cli import main
from robustbench_cli.runs import folders

SMALL = ["--set", "train.limit=400", "--set", "train.probe=40", "--set", "model.width=4"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A net that was trained for two epochs, and certified."""
    out = tmp_path_factory.mktemp("certify") / "results"
    train = ["train", "standard", "--epochs", "2", "--out", str(out), "--name", "net", *SMALL]
    assert main(train) == 0
    chosen = ["--certify", "smoothing:n=300,alpha=0.01", "--sigma", "0.25", "--n0", "20"]
    assert main(["eval", "--run", "net", *chosen, "--n", "30", "--out", str(out), "--quiet"]) == 0
    return out


LABEL = "smoothing:n=300,alpha=0.01,sigma=0.25,n0=20"


def test_the_record_holds_every_parameter(results):
    run = folders.every(results)[-1]
    params = {"name": "smoothing", "sigma": 0.25, "n0": 20, "n": 300, "alpha": 0.01}
    assert run.config["certify"] == {LABEL: params}
    assert run.config["attack"] == {}
    proof = run.certificates[LABEL]
    assert (run.n, proof.n, proof.params) == (30, 30, params)


def test_the_table_has_what_is_proven(results, capsys):
    assert main(["report", "--results", str(results), "-f", "json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    proof = folders.every(results)[-1].certificates[LABEL]
    assert row["correct"]["smoothing"] == [proof.correct]
    balls = ["L2=0", "L2=0.25", "L2=0.5", "L2=0.75", "L2=1", "Linf=2/255", "Linf=0.15"]
    for each, name in zip(proof.within, balls, strict=True):
        assert row["correct"][f"certified@{name}"] == [each.correct]
        assert row[f"certified@{name}"] == pytest.approx(each.accuracy)
    # No attack, so nothing that all attacks leave.
    assert "worst" not in row["correct"]
    columns = "clean,smoothing,certified@Linf=2/255"
    assert main(["report", "--results", str(results), "-f", "md", "--columns", columns]) == 0
    table = capsys.readouterr().out
    assert "| clean | smoothing | certified@Linf=2/255 |" in table
    assert "proven" in table


def test_what_is_printed(results, tmp_path, capsys):
    command = ["eval", "--run", str(results / "net"), "--attack", "fgsm", "--n", "10", "--quiet"]
    assert main([*command, "--certify", "smoothing:n=50,sigma=1/4", "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    (run,) = folders.every(tmp_path)
    (proof,) = run.certificates.values()
    assert math.isclose(proof.params["sigma"], 0.25)
    shown = {
        line.split()[0]: line.split()[1:4] for line in lines if "%" in line and ":" not in line
    }
    assert shown["certified@L2=0.25"] == [f"{proof.within[1].accuracy:.2%}", *_counts(proof, 1)]
    assert any(f"average certified radius L2 {proof.mean_radius:.4f}" in line for line in lines)
    assert main(["list", "runs", "--results", str(tmp_path)]) == 0
    assert f"smoothing:n=50,sigma=1/4 {proof.accuracy:.2%}" in capsys.readouterr().out


def _counts(proof, place):
    return [str(proof.within[place].correct), str(proof.n)]


def test_it_is_listed_and_explained(capsys):
    assert main(["list", "certificates"]) == 0
    assert "smoothing" in capsys.readouterr().out
    assert main(["show", "smoothing:sigma=0.5"]) == 0
    out = capsys.readouterr().out
    assert "https://arxiv.org/abs/1902.02918" in out
    assert "advbench eval --certify smoothing:sigma=0.5" in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--certify", "smoothing", "--sigma", "0"], "'sigma': Input should be greater than 0"),
        (["--certify", "smoothing", "--sigma", "-1"], "'sigma': Input should be greater than 0"),
        (["--certify", "smoothing:alpha=1"], "'alpha': Input should be less than 1"),
        (["--certify", "smoothing:n=0"], "'n': Input should be greater than or equal to 1"),
        (["--certify", "smoothing", "--n0", "0"], "'n0': Input should be greater than or equal"),
        (["--certify", "smothing"], "unknown certificate 'smothing'; did you mean 'smoothing'"),
        (["--certify", "smoothing:sgima=1"], "did you mean 'sigma'"),
        (["--attack", "fgsm", "--sigma", "0.25"], "add --certify smoothing"),
        (["--certify", "smoothing", "--eot", "3"], "name an attack"),
        (["--certify", "smoothing", "--sweep", "eps=0,0.1"], "goes without --sweep"),
        (["--certify", "smoothing", "--n", "501"], "the test split has 500"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(args, message, results, capsys):
    before = sorted(results.iterdir())
    assert main(["eval", "--run", "net", *args, "--out", str(results)]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert not out
    assert sorted(results.iterdir()) == before


def test_ctrl_c_says_how_to_go_on(results, tmp_path, capsys, monkeypatch):
    command = ["eval", "--run", str(results / "net"), "--certify", "smoothing:n=40", "--n", "6"]
    command += ["--out", str(tmp_path), "--quiet"]
    evidence = Smoothing.evidence

    def interrupted(self, subject, rows):
        yield next(evidence(self, subject, rows))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Smoothing, "evidence", interrupted)
        assert main(command) == 130
    assert "Run the same command again to go on" in capsys.readouterr().err
    (cut,) = folders.every(tmp_path)
    assert cut.status == "interrupted"
    assert main(command) == 0
    assert Path(capsys.readouterr().out.splitlines()[-1]).name == cut.id
    assert folders.every(tmp_path)[0].status == "ok"
