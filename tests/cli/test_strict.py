"""``--strict`` and ``--no-checks``: what an evaluation ends with, and what its record says."""

import json

import pytest

from robustbench_cli.cli import main
from robustbench_cli.cli.eval_summary import refuse_unsound
from robustbench_cli.runs import records

PGD20 = {"name": "pgd", "steps": 20}


@pytest.fixture
def strict(tmp_path, trained, evaluated, kept, capsys):
    """The exit code and standard error of ``--strict`` for an evaluation with these trusts."""

    def run(clean, worst, **attacks):
        asked = {label: (PGD20, 40, {"trust": trust}) for label, trust in attacks.items()}
        trusts = {"clean_trust": clean, "worst_case_trust": worst}
        kept(tmp_path, evaluated(trained(), asked, id="e", **trusts))
        try:
            refuse_unsound(tmp_path / "e")
        except Exception as left:
            return left.exit_code, capsys.readouterr().err
        return 0, capsys.readouterr().err

    return run


def test_sound_numbers_pass(strict):
    assert strict("sound", "sound", pgd20="sound", fgsm="sound") == (0, "")


def test_every_number_that_is_not_sound_is_named(strict):
    trusts = {"pgd20": "upper bound", "fgsm": "sound", "cw": "withheld", "apgd": "unchecked"}
    code, said = strict("withheld", "upper bound", **trusts)
    assert code == 3
    assert said == (
        "advbench: not sound: clean (withheld), pgd20 (upper bound), cw (withheld), "
        "apgd (unchecked), all attacks (upper bound)\n"
    )


def test_the_worst_case_of_one_attack_is_that_attack(strict):
    assert strict("sound", "upper bound", pgd20="sound") == (0, "")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    results = tmp_path_factory.mktemp("strict") / "results"
    small = ["--set", "train.limit=150", "--set", "train.probe=0", "--set", "model.width=4"]
    done = ["train", "standard", "--epochs", "1", "--out", str(results), "--name", "net", "-q"]
    assert main([*done, *small]) == 0
    return results


@pytest.mark.parametrize(
    "command",
    [["eval", "--attack", "fgsm"], ["attack", "fgsm"], ["detect", "eval", "--attack=fgsm"]],
)
def test_strict_without_checks_is_refused(command, results, capsys):
    before = {*results.iterdir()}
    assert main([*command, "--strict", "--no-checks", "--out", str(results)]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("advbench: --strict asks for numbers that were checked")
    assert said.err.count("\n") == 1
    assert {*results.iterdir()} == before


def test_an_evaluation_without_checks_says_so(results, capsys):
    asked = ["eval", "--attack", "fgsm", "--n", "16", "--out", str(results), "-q"]
    for name, more in (("plain", []), ("bare", ["--no-checks"])):
        assert main([*asked, "--name", name, *more]) == 0
    plain, bare = (records.read(results / name) for name in ("plain", "bare"))
    assert bare.config == {**plain.config, "checks": False}
    # A record of before there were checks holds the same configuration as one with them.
    assert "checks" not in plain.config
    assert bare.checked is None
    assert bare.findings == []


def test_an_unfinished_evaluation_of_before_there_were_checks_goes_on(results):
    asked = ["eval", "--attack", "fgsm", "--n", "20", "--out", str(results), "-q"]
    assert main([*asked, "--name", "old"]) == 0
    file = results / "old" / "run.json"
    record = json.loads(file.read_text())
    added = ("checked", "findings", "clean_trust", "worst_case_trust", "control")
    old = {key: value for key, value in record.items() if key not in added}
    file.write_text(json.dumps({**old, "status": "interrupted"}))
    count = len([*results.iterdir()])
    assert main(asked) == 0
    assert len([*results.iterdir()]) == count
    assert records.read(results / "old").status == "ok"


BATCHED = """
import torch
from torch import nn

class Batched(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def forward(self, x):
        return 30 * self.net(x - x.mean(0))

def make():
    return Batched().eval()
"""


@pytest.mark.parametrize("command", [["eval", "--attack", "fgsm"], ["attack", "fgsm"]])
def test_a_model_whose_answers_depend_on_the_batch_ends_with_code_three(command, tmp_path, capsys):
    (tmp_path / "net.py").write_text(BATCHED)
    model = ["--model", f"{tmp_path / 'net.py'}:make", "--dataset", "digits", "--eps", "0.1"]
    words = [*command, *model, "--n", "40", "--out", str(tmp_path / "results"), "-q"]
    assert main([*words, "--strict"]) == 3
    shown = capsys.readouterr()
    assert "withheld" in shown.out
    assert "error: neighbours: " in shown.out
    last = shown.err.splitlines()[-1]
    assert last == "advbench: not sound: clean (withheld), fgsm (withheld)"
    assert main(words) == 0
