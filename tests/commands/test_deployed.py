"""What an evaluation may set of a trained defense: what is measured, never how it was trained."""

import pytest
import torch

from robustbench_cli.cli import main
from robustbench_cli.commands.eval_config import resolve_eval_config
from robustbench_cli.commands.load_model import Choice, deployed, find_model
from robustbench_cli.commands.workspace import Workspace
from robustbench_cli.report.robustness_table import rows
from robustbench_cli.runs import folders, records

SMALL = ["train.limit=150", "train.probe=0", "train.batch_size=50", "model.width=4"]
ATTACK = {"fgsm": {"name": "fgsm"}}


def evaluate(out, name, *changes):
    words = [word for pair in changes for word in ("--set", pair)]
    where = ["--out", str(out), "--run", "net", "--name", name, "--n", "60", "--quiet"]
    return main(["eval", "--attack", "pgd5", *where, *words])


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A net with cosines at scale 10, measured at that scale and at another one."""
    results = tmp_path_factory.mktemp("results")
    words = [word for pair in SMALL for word in ("--set", pair)]
    where = ["--epochs", "2", "--out", str(results), "--name", "net", "--quiet"]
    assert main(["train", "standard+he:scale=10,margin=0.1", *where, *words]) == 0
    assert evaluate(results, "own") == 0
    assert evaluate(results, "paper", "defense.he.eval_scale=1") == 0
    return results


def record(out, name):
    return records.read(out / name)


def test_the_same_weights_are_measured_and_the_record_holds_the_scale(out):
    own, paper = (record(out, name) for name in ("own", "paper"))
    assert own.weights == paper.weights
    assert own.config["defense"] == record(out, "net").config["defense"]
    assert paper.config["defense"]["he"] == own.config["defense"]["he"] | {"eval_scale": 1.0}
    # The order of the cosines is the same at any scale; what attacks see of them is not.
    assert own.clean_accuracy == paper.clean_accuracy
    assert not [note for note in own.notes if "evaluated at" in note]
    assert [note for note in paper.notes if "trained at scale 10 and evaluated at 1" in note]


def test_measurements_at_two_scales_are_two_rows(out):
    found = rows([*folders.distinct(out).values()])
    told = {
        row.runs: (row.facts["defense"].text, row.config["defense"]["he"]["eval_scale"])
        for row in found
    }
    assert told.keys() == {("own",), ("paper",)}
    assert told["paper",][1] == 1.0
    assert "eval_scale" in told["paper",][0]
    assert told["own",][0] != told["paper",][0]


def test_logits_are_the_cosines_times_the_scale_that_was_asked_for(out):
    workspace, x = Workspace(out=out), torch.rand(4, 1, 8, 8)
    logits = {}
    for scale in ("0", "1", "3"):
        subject, base = find_model(Choice(run="net"), workspace)
        config = resolve_eval_config(base, {"attack": ATTACK}, [f"defense.he.eval_scale={scale}"])
        with torch.no_grad():
            logits[scale] = deployed(subject, config).model.eval()(x)
    assert logits["1"].abs().max() <= 1 + 1e-6
    torch.testing.assert_close(logits["3"], 3 * logits["1"])
    torch.testing.assert_close(logits["0"], 10 * logits["1"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("defense.he.scale=1", "cannot change how a model was trained; of he it takes eval_scale"),
        ("defense.standard.x=1", "--set defense.standard.x: an evaluation cannot change how"),
        ("defense.hee.eval_scale=1", "no such part; did you mean 'he'?"),
        ("defense.he.eval_scale=-1", "parameter 'eval_scale': Input should be greater than or"),
        ("model.width=8", "an evaluation cannot change that"),
    ],
)
def test_the_training_cannot_be_changed(out, capsys, change, message):
    before = sorted(out.iterdir())
    assert evaluate(out, "other", change) == 2
    assert message in capsys.readouterr().err
    assert sorted(out.iterdir()) == before
