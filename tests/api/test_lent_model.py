"""A model is given back as it was, whatever happened in between."""

import pytest
import torch
from torch import nn

from robustbench_cli import RunError, Threat, UserError, attack, evaluate
from robustbench_cli.evaluation import repeated_stage

EPS = Threat("Linf", 0.12)


def state(model):
    """All that a caller can see of a model."""
    modules = [(name, type(m), m.training) for name, m in model.named_modules()]
    tensors = {
        name: (
            id(t),
            t.data_ptr(),
            t.dtype,
            t.device,
            t.shape,
            t.stride(),
            t.requires_grad,
            None
            if t.grad is None
            else (id(t.grad), t.grad.dtype, t.grad.stride(), t.grad.tolist()),
            t.tolist(),
        )
        for name, t in [*model.named_parameters(), *model.named_buffers()]
    }
    return modules, tensors


@pytest.fixture
def graded(mixed, images, labels):
    """Mixed flags, gradients of the last step, one layer channels_last."""
    mixed.net.to(memory_format=torch.channels_last)
    nn.functional.cross_entropy(mixed(images), labels).backward()
    return mixed


@pytest.mark.parametrize("chosen", ["pgd3", "fmn:steps=5", "square:queries=10", "fab-t:steps=2"])
def test_a_model_comes_back_as_it_was(chosen, graded, images, labels):
    before = state(graded)
    result = evaluate(graded, images, labels, attacks=chosen, threat=EPS)
    assert state(graded) == before
    assert result.clean_accuracy > 0.5
    attack(chosen, graded, images, labels, threat=EPS)
    assert state(graded) == before


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_of_another_dtype_is_evaluated_in_float32(dtype, graded, images, labels):
    graded.zero_grad()
    graded.to(dtype)
    before = state(graded)
    result = evaluate(graded, images, labels, attacks="pgd3", threat=EPS)
    assert state(graded) == before
    assert any(f"{dtype}: it is evaluated in float32" in note for note in result.notes)
    graded.float()
    plain = evaluate(graded, images, labels, attacks="pgd3", threat=EPS)
    assert not plain.notes
    assert plain.robust_accuracy == result.robust_accuracy


class Drifting(nn.Module):
    """Running statistics that follow whatever it is shown, in evaluation mode, too."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x):
        self.seen += x.mean().detach()
        return self.net(x)


def test_a_model_that_changes_itself_is_refused_and_put_back(net, images, labels):
    model = Drifting(net).train()
    before = state(model)
    with pytest.raises(RunError, match="changed its buffer 'seen'"):
        evaluate(model, images, labels, attacks="pgd3", threat=EPS)
    assert state(model) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_a_model_comes_back_after_an_error(error, graded, images, labels, monkeypatch):
    before, work = state(graded), repeated_stage.run_stage

    def fail(*args):
        list(work(*args))
        raise error

    monkeypatch.setattr(repeated_stage, "run_stage", fail)
    for call in (evaluate, lambda *a, attacks, **k: attack(attacks, *a, **k)):
        with pytest.raises(error):
            call(graded, images, labels, attacks="pgd3", threat=EPS)
        assert state(graded) == before


def test_a_model_comes_back_after_a_mistake(graded, images, labels):
    before = state(graded)
    for y in (labels + 5, labels[:3]):
        with pytest.raises(UserError):
            evaluate(graded, images, y, attacks="pgd3", threat=EPS)
    with pytest.raises(UserError, match="cannot take images"):
        evaluate(graded, images[:, :, :3], labels, attacks="pgd3", threat=EPS)
    with pytest.raises(UserError, match="unknown device"):
        evaluate(graded, images, labels, attacks="pgd3", threat=EPS, device="gpu")
    assert state(graded) == before


def test_training_goes_on_as_if_nothing_had_happened(mixed, images, labels):
    """The optimiser still holds the tensors that the model computes with."""
    optimizer = torch.optim.SGD([p for p in mixed.parameters() if p.requires_grad], lr=0.1)
    evaluate(mixed, images, labels, attacks="pgd2", threat=EPS)
    before = nn.functional.cross_entropy(mixed(images), labels)
    before.backward()
    optimizer.step()
    assert nn.functional.cross_entropy(mixed(images), labels) < before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_model_comes_back_from_another_device(graded, images, labels):
    before = state(graded)
    result = evaluate(graded, images, labels, attacks="pgd3", threat=EPS, device="cuda")
    assert state(graded) == before
    here = evaluate(graded, images, labels, attacks="pgd3", threat=EPS)
    assert result.clean_accuracy == here.clean_accuracy


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_torchscript_model(net, images, labels):
    expected = evaluate(net, images, labels, attacks="pgd3", threat=EPS, precision="exact")
    script = torch.jit.trace(net.eval(), images).train()
    before = [(p.data_ptr(), p.requires_grad, p.tolist()) for p in script.parameters()]
    found = evaluate(script, images, labels, attacks="pgd3", threat=EPS, precision="exact")
    assert (found.broken["pgd3"] == expected.broken["pgd3"]).all()
    assert [(p.data_ptr(), p.requires_grad, p.tolist()) for p in script.parameters()] == before
    assert script.training
