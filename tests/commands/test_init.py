"""Training that begins with another run's weights: ``--init``."""

import pytest
import torch

from robustbench_cli.cli import main
from robustbench_cli.commands import parent_runs
from robustbench_cli.core.registry import Spec
from robustbench_cli.models import MODELS, Shape
from robustbench_cli.runs import records
from robustbench_cli.training import checkpoint

# A rate of zero: what the weights were at the beginning, they are at the end.
STILL = ["schedule.name=linear", "schedule.times=[0, 1]", "schedule.factors=[0, 0]"]
SMALL = ["train.limit=60", "train.probe=0", "train.batch_size=20"]
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@pytest.fixture(scope="module")
def out(tmp_path_factory, drawn):
    """A folder with ``base``, trained on ten classes, and images of four in ``four.npz``."""
    results = tmp_path_factory.mktemp("results")
    drawn(results / "four.npz", classes=4, channels=1)
    assert train(results, "--name", "base") == 0
    return results


def train(out, *more, settings=()):
    """The exit status of a run."""
    pairs = [word for pair in (*SMALL, *settings) for word in ("--set", pair)]
    place = ["--model", "digits-cnn:width=4", "--out", str(out), "--epochs", "1", "--quiet"]
    return main(["train", "pgd-at:steps=1", *place, *pairs, *more])


def weights(out, name):
    return checkpoint.load_tensors(out / name / "model.safetensors")[0]


def on_four(out):
    return ["--dataset", f"npz:{out / 'four.npz'}"]


def loaded(out, **parents):
    named = parent_runs.ParentNames(**parents).parents(out)
    return parent_runs.load_parents(
        named, out, Shape(1, 8, 8, 4, (0.2,), (0.7,)), torch.device("cpu")
    )


def fresh(classes):
    shape = Shape(1, 8, 8, classes, (0.2,), (0.7,))
    return MODELS.build(Spec("digits-cnn", {"width": 4})).build(shape)


def test_another_number_of_classes_takes_all_but_the_head(out):
    base, model = weights(out, "base"), fresh(4)
    own = {key: value.clone() for key, value in model.state_dict().items()}
    loaded(out, init="base").start(model)
    now = model.state_dict()
    heads = {key for key in now if key.startswith("head.")}
    assert heads == {"head.weight", "head.bias"}
    for key, value in now.items():  # the statistics of BatchNorm, too
        assert torch.equal(value, (own if key in heads else base)[key]), key
    assert len(now["head.weight"]) == 4


def test_the_same_number_of_classes_takes_the_head_too(out):
    model = fresh(10)
    loaded(out, init="base").start(model)
    torch.testing.assert_close(model.state_dict(), weights(out, "base"), rtol=0, atol=0)


def test_a_run_for_other_classes_begins_with_that_body_and_a_head_of_its_own(out):
    assert train(out, *on_four(out), "--name", "scratch", settings=STILL) == 0
    assert train(out, *on_four(out), "--name", "tuned", "--init", "base", settings=STILL) == 0
    assert records.read(out / "tuned").config["parents"]["init"]["run"] == "base"
    base, scratch, tuned = (weights(out, name) for name in ("base", "scratch", "tuned"))
    parameters = [key for key in tuned if not key.endswith(STATISTICS)]
    for key in parameters:
        begun = scratch if key.startswith("head.") else base
        assert torch.equal(tuned[key], begun[key]), key
    assert not torch.equal(tuned["body.conv1.weight"], scratch["body.conv1.weight"])


@pytest.mark.parametrize(
    ("model", "differs"), [("digits-cnn:width=6", "body.bn1.bias"), ("strided-cnn", "body.")]
)
def test_another_architecture_is_one_line(model, differs, out, capsys):
    before = sorted(out.iterdir())
    for where in ([], on_four(out)):
        assert train(out, *where, "--model", model, "--init", "base") == 2
        said = capsys.readouterr()
        assert not said.out
        line = f"advbench: --init: that run has another architecture ('{differs}"
        assert said.err.startswith(line)
        assert said.err.endswith("differs); only the last layer may\n")
        assert said.err.count("\n") == 1
    assert sorted(out.iterdir()) == before
