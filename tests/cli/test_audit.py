"""The command ``audit``: its options, its exit code, and what it prints."""

from dataclasses import replace

import pytest

from robustbench_cli.audit import stronger
from robustbench_cli.audit.self_test import SelfTest
from robustbench_cli.cli import main
from robustbench_cli.commands import audit_battery
from robustbench_cli.runs import folders, records


def test_two_models_and_impossible_claims_are_refused(capsys, tmp_path):
    out = ["--out", str(tmp_path)]
    assert main(["audit", "run", "--model", "net.py:make", *out]) == 2
    assert "name two models" in capsys.readouterr().err
    assert main(["audit", *out]) == 2
    assert "train one first" in capsys.readouterr().err


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of results with one run of a few seconds."""
    out = tmp_path_factory.mktemp("results")
    words = ["train", "standard", "--dataset", "digits", "--out", str(out), "--quiet"]
    assert main([*words, "--set", "train.epochs=3", "--name", "net"]) == 0
    return out


def test_an_audit_ends_with_a_page_and_a_claim_that_fails_with_exit_code_3(
    trained, capsys, monkeypatch
):
    monkeypatch.setattr(stronger, "STRONGER", {})
    monkeypatch.setattr(audit_battery, "PLAIN_EPOCHS", 1)
    monkeypatch.setattr(SelfTest, "_attacks", lambda _, of: {"pgd3": of.claimed.attack})
    words = ["audit", "net", "--attack", "pgd3", "--n", "8", "--claim", "100", "--name", "a"]
    assert main([*words, "--out", str(trained), "--strict", "--quiet"]) == 3
    said = capsys.readouterr()
    assert "not reproduced" in said.out
    assert "not reproduced" in said.err
    folder = trained / "a"
    assert said.out.splitlines()[-1] == str(folder)
    assert {"audit.md", "audit.html", "run.json", "examples.npz"} <= {
        path.name for path in folder.iterdir()
    }
    assert not (folder / "journal").exists()
    run = records.read(folder)
    assert (run.kind, run.n, run.audit.claim.accuracy) == ("audit", 8, 1.0)
    # Lists and explanations know it; tables of evaluations leave it out.
    assert main(["list", "runs", "--results", str(trained)]) == 0
    assert "audit" in capsys.readouterr().out
    assert main(["show", "a", "--results", str(trained)]) == 0
    assert "audit run, ok" in capsys.readouterr().out
    assert main(["report", "--results", str(trained)]) == 2
    assert "no finished evaluation" in capsys.readouterr().err
    assert replace(run) in folders.every(trained)
