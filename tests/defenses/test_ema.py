"""Averaged weights: the recursion, and training, evaluation and saving with two sets of weights."""

import copy
from pathlib import Path

import pytest
import torch

from robustbench_cli.commands import components, train_config
from robustbench_cli.commands import train as train_command
from robustbench_cli.commands.display import Display
from robustbench_cli.commands.load_model import Choice, find_model
from robustbench_cli.commands.workspace import Workspace
from robustbench_cli.core.registry import Spec
from robustbench_cli.data import DATASETS
from robustbench_cli.defenses import DEFENSES
from robustbench_cli.defenses.ema import Average
from robustbench_cli.runs import records
from robustbench_cli.training import checkpoint

SMALL = ["train.epochs=3", "train.limit=200", "train.probe=50", "model.width=4"]


def train(out, name, *settings, display=None):
    chosen = train_config.resolve_train_config(
        {"defense": components.defense_tables("pgd-at:steps=2+ema:decay=0.9")},
        [*SMALL, *settings],
    )
    workspace = Workspace(out=out, device="cpu")
    return train_command.run_training(
        chosen, workspace, display or Display(), command=["x"], run_id=name
    )


def test_the_average_is_the_recursion_with_tensorflow_s_bound_on_the_decay(model):
    average, net = Average(model), copy.deepcopy(model)
    expected = [t.clone() for t in (*model.parameters(), *model.buffers())]
    for n in range(60):
        with torch.no_grad():
            for p in net.parameters():
                p += 0.1 * torch.randn_like(p)
        net.train()(torch.rand(8, 1, 8, 8).double())  # BatchNorm moves, too
        average.update(net, 0.8)
        decay = min(0.8, (1 + n) / (10 + n))
        for old, new in zip(expected, (*net.parameters(), *net.buffers()), strict=True):
            old.copy_(decay * old + (1 - decay) * new if new.is_floating_point() else new)
    found = (*average.model.parameters(), *average.model.buffers())
    torch.testing.assert_close(found, tuple(expected), rtol=1e-6, atol=1e-6)
    assert not any(p.requires_grad for p in average.parameters())


def test_a_decay_of_zero_is_the_model_itself(model):
    average, net = Average(model), copy.deepcopy(model)
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    average.update(net, 0.0)
    torch.testing.assert_close(average.model.state_dict(), net.state_dict(), rtol=0, atol=0)


def test_the_model_gets_its_own_weights_back(model):
    part = DEFENSES.build(Spec("ema"))
    average, before = Average(model), copy.deepcopy(model.state_dict())
    with torch.no_grad():
        for p in average.model.parameters():
            p.add_(1)
    with part.swap_in_eval_weights(model, average):
        torch.testing.assert_close(model.state_dict(), average.model.state_dict())
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)

    def interrupted():
        with part.swap_in_eval_weights(model, average):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


class Looking(Display):
    """Interrupts a run after an epoch, so that its training state is kept."""

    def __init__(self, after):
        self._after = after

    def epoch(self, row):
        if row["epoch"] == self._after:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return a whole run, one that was interrupted and resumed, and one with its state."""
    out = tmp_path_factory.mktemp("results")
    whole = train(out, "whole")
    with pytest.raises(KeyboardInterrupt):
        train(out, "cut", display=Looking(1))
    cut = train_command.resume_training("cut", Workspace(out=out, device="cpu"), Display())
    with pytest.raises(KeyboardInterrupt):
        train(out, "open", display=Looking(2))
    return whole, cut, out / "open"


def test_what_is_saved_is_the_average_and_training_goes_on_without_it(folders):
    kept, _ = checkpoint.load_tensors(folders[2] / "model.safetensors")
    state, _ = checkpoint.load_tensors(folders[2] / "state.safetensors")
    average = {k.removeprefix("aids.EMA.model."): v for k, v in state.items() if "aids.EMA.m" in k}
    torch.testing.assert_close(kept, average, rtol=0, atol=0)
    own = {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}
    assert not torch.equal(own["head.weight"], kept["head.weight"])


def test_what_is_measured_is_the_average(folders):
    """The history's accuracy on training images is that of the saved weights."""
    run = records.read(folders[0])
    subject, _ = find_model(Choice(run=str(folders[0])), Workspace(out=folders[0].parent))
    data = DATASETS.build(Spec("digits")).load("train", Path()).only(slice(50))
    with torch.no_grad():
        right = subject.model.eval()(data.images(slice(50))).argmax(1) == data.y
    assert run.history[-1]["train_clean"] == pytest.approx(right.double().mean().item())


def test_it_resumes_bit_for_bit(folders):
    whole, cut, _ = folders
    for name in ("model.safetensors", "aids.safetensors"):
        assert records.sha256(whole / name) == records.sha256(cut / name)
    rows = [[without_times(row) for row in records.read(folder).history] for folder in (whole, cut)]
    assert rows[0] == rows[1]


def without_times(row):
    return {k: v for k, v in row.items() if not k.endswith("seconds")}
