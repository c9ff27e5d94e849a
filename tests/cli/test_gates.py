"""``--fail-under``: which numbers pass, what is said of the others, and how the command ends."""

import json

import pytest

from robustbench_cli.cli import main
from robustbench_cli.cli.exit_codes import ExitCode
from robustbench_cli.cli.gates import chosen_gates, gate_verdicts
from robustbench_cli.core.errors import UserError

PGD20 = {"name": "pgd", "steps": 20}
ATTACKS = {"pgd20": PGD20, "fgsm": {"name": "fgsm"}}


def gates(*texts, attacks=ATTACKS, sweep=""):
    return {gate.name: gate.least for gate in chosen_gates(texts, attacks, sweep=sweep)}


def test_a_number_alone_is_for_every_attack_and_one_with_a_name_goes_before_it():
    assert gates("40") == {"pgd20": 40, "fgsm": 40}
    assert gates("pgd20=10", "40", "worst=35", "clean=80%") == {
        "pgd20": 10,
        "fgsm": 40,
        "worst": 35,
        "clean": 80,
    }
    long = {"pgd:steps=50,loss=cw": PGD20}
    assert gates("PGD:steps=50,loss=cw=12.5", attacks=long) == {"pgd:steps=50,loss=cw": 12.5}
    assert gates() == {}


@pytest.mark.parametrize(
    ("texts", "attacks", "sweep", "message"),
    [
        (["forty"], ATTACKS, "", "'forty': give per cent from 1 to 100, e.g. 40, pgd20=40"),
        (["0.4"], ATTACKS, "", "per cent from 1 to 100"),  # a share would be no gate
        (["nan"], ATTACKS, "", "per cent"),
        (["pgd20=101"], ATTACKS, "", "per cent"),
        (["pdg20=40"], ATTACKS, "", "no number of this evaluation; did you mean 'pgd20'"),
        (["40"], {}, "", "no attack to gate"),
        (["40"], ATTACKS, "eps=0,0.1", "a sweep has many accuracies"),
    ],
)
def test_what_cannot_be_a_gate_is_refused(texts, attacks, sweep, message):
    with pytest.raises(UserError, match=message):
        chosen_gates(texts, attacks, sweep=sweep)


@pytest.mark.parametrize(
    ("trust", "least", "passed", "said"),
    [
        ("sound", 40, True, ""),
        ("sound", 41, False, "pgd20 is 40.00 %, below 41 %"),
        ("upper bound", 40, False, "pgd20 is at most 40.00 %: not shown to reach 40 %"),
        ("upper bound", 50, False, "pgd20 is 40.00 %, below 50 %"),
        ("withheld", 1, False, "pgd20 is withheld: it means nothing, so it is not shown to reach"),
        ("unchecked", 40, True, "pgd20 passes 40 % unchecked"),
    ],
)
def test_only_a_number_that_nothing_speaks_against_passes(
    trust, least, passed, said, trained, evaluated
):
    run = evaluated(trained(), {"pgd20": (PGD20, 40, {"trust": trust})}, id="e")
    (found,) = gate_verdicts(run, chosen_gates([str(least)], run.attacks, sweep=""))
    assert found.passed == passed
    assert said in found.said
    assert bool(said) == bool(found.said)


NET = """
import torch
from sklearn.datasets import load_digits
from torch import nn

def make():
    digits = load_digits()
    x, y = torch.tensor(digits.images / 16, dtype=torch.float32), torch.tensor(digits.target)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net.eval()

class Centred(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = make()

    def forward(self, x):
        return self.net(x - x.mean(0))
"""


@pytest.fixture
def evaluate(tmp_path, capsys):
    """Return the exit code and both outputs of an evaluation of a net that nobody trained."""
    (tmp_path / "net.py").write_text(NET)

    def run(*words, function="make"):
        model = ["--model", f"{tmp_path / 'net.py'}:{function}", "--dataset", "digits"]
        common = ["--eps", "0.1", "--n", "20", "--attack", "fgsm", "--out", str(tmp_path / "r")]
        return main(["eval", *model, *common, "-q", *words]), *capsys.readouterr()

    return run


def test_the_exit_code_and_json_say_what_became_of_the_gate(evaluate):
    code, out, err = evaluate("--fail-under", "90", "--json")
    assert code == ExitCode.BELOW == 4
    outcome = json.loads(out)
    (gate,) = outcome["gates"]
    assert (gate["number"], gate["at_least"], gate["passed"]) == ("fgsm", 90, False)
    accuracy = outcome["attacks"]["fgsm"]["accuracy"]
    assert gate["reason"] == f"fgsm is {100 * accuracy:.2f} %, below 90 %"
    assert f"advbench: --fail-under: {gate['reason']}" in err
    code, out, _ = evaluate("--fail-under", "0", "--no-checks")
    assert code == ExitCode.DONE == 0
    assert "attack" in out


def test_a_withheld_number_does_not_pass_a_gate_of_zero_per_cent(evaluate):
    words = ["--fail-under", "0", "--json"]
    code, out, err = evaluate(*words, function="Centred")
    assert code == 4
    assert json.loads(out)["attacks"]["fgsm"] == {
        **json.loads(out)["attacks"]["fgsm"],
        "accuracy": None,
        "trust": "withheld",
    }
    assert "fgsm is withheld" in err
    assert evaluate(*words, "--strict", function="Centred")[0] == ExitCode.UNSOUND == 3


def test_a_gate_for_what_is_not_measured_is_refused_before_the_evaluation(evaluate, tmp_path):
    code, out, err = evaluate("--fail-under", "pgd20=40")
    assert (code, out) == (2, "")
    assert "advbench: --fail-under 'pgd20': it is no number" in err
    assert not (tmp_path / "r").exists()
