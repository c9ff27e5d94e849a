"""A borrowed model comes back as it was."""

import copy

import pytest
import torch

from robustbench_cli.core.model_modes import borrowed, evaluating


@pytest.mark.parametrize("mode", ["eval", "train", "frozen"])
@pytest.mark.parametrize("fails", [False, True])
def test_each_mode_and_its_end(mode, fails, model):
    model.train()
    model.body.relu1.eval()  # somebody's own choice must survive
    before = copy.deepcopy(model.state_dict())
    x = torch.rand(16, 1, 8, 8).double()
    with torch.no_grad():
        batch_statistics = model(x)
        model.load_state_dict(before)
        with evaluating(model):
            running_statistics = model(x)
    try:
        with borrowed(model, mode), torch.no_grad():
            out = model(x)
            if fails:
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    expected = running_statistics if mode == "eval" else batch_statistics
    torch.testing.assert_close(out, expected)
    same = all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert same == (mode != "train")
    assert model.training
    assert not model.body.relu1.training
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert all(norm.track_running_stats for norm in norms)
