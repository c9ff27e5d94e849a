"""``load_run``: the model, the record and the threat of a training run."""

import numpy as np
import pytest
import torch

from robustbench_cli import Threat, UserError, evaluate, load_run
from robustbench_cli.cli import main
from robustbench_cli.runs import folders

TRAIN = ["train", "pgd-at:steps=1+ema", "--eps", "16/255", "--epochs", "1", "--quiet"]
SMALL = ["--set", "train.limit=128", "--set", "train.probe=0"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    assert main([*TRAIN, *SMALL, "--name", "mine", "--out", str(out)]) == 0
    assert main(["eval", "--attack", "fgsm", "--n", "30", "--out", str(out), "--quiet"]) == 0
    return out


def test_a_run_by_its_folder_its_id_or_part_of_it(results):
    runs = [
        load_run(results / "mine"),
        load_run(str(results / "mine")),
        load_run("mine", results=results),
        load_run("min", results=str(results)),
        load_run(results=results),
    ]
    x, _ = runs[0].test_images(5)
    logits = [run.model(x) for run in runs]
    assert all(torch.equal(logits[0], each) for each in logits)
    for run in runs:
        assert not any(module.training for module in run.model.modules())
        assert run.record.id == "mine"
        assert run.threat == Threat("Linf", 16 / 255)
        assert run.folder == results / "mine"
        assert repr(run) == "TrainedRun(mine: pgd-at:steps=1+ema, Linf 16/255)"


def test_its_images_are_those_of_the_evaluations(results):
    run = load_run("mine", results=results)
    x, y = run.test_images()
    assert (x.dtype, x.shape, y.dtype) == (torch.float32, (500, 1, 8, 8), torch.int64)
    assert 0 <= float(x.min()) < float(x.max()) <= 1
    judged = folders.every(results)[-1]
    x, y = run.test_images(30)
    # A net of one epoch: its accuracy may be withheld, so the records are compared.
    found = evaluate(run.model, x, y, attacks="fgsm", threat=run.threat).record.attacks
    assert found["fgsm"].correct == judged.attacks["fgsm"].correct
    with np.load(results / judged.id / "examples.npz") as arrays:
        assert np.array_equal(arrays["label"], y.numpy())
    for n in (-1, 501):
        with pytest.raises(UserError, match=f"n={n}: the test split has 500 examples"):
            run.test_images(n)


def test_only_training_runs_have_a_model(results):
    judged = folders.every(results)[-1]
    with pytest.raises(UserError, match="of kind 'eval'"):
        load_run(results / judged.id)
