"""Training state goes through safetensors and comes back exactly."""

import pytest
import torch

from robustbench_cli.core.errors import UserError
from robustbench_cli.training import checkpoint


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_model_and_optimiser_go_on_where_they_were(kind, layout, tmp_path, model):
    model = model.to(memory_format=layout)

    def steps(net, optimizer, n, first):
        for i in range(n):
            torch.manual_seed(first + i)
            optimizer.zero_grad()
            net(torch.rand(8, 1, 8, 8).double()).square().sum().backward()
            optimizer.step()

    options = {"lr": 0.01, "fused": True} | ({"momentum": 0.9} if kind is torch.optim.SGD else {})
    optimizer = kind(model.parameters(), **options)
    auxiliaries = torch.nn.ModuleDict({"Part": torch.nn.Linear(2, 2)})
    kept = {k: v.clone() for k, v in auxiliaries.state_dict().items()}
    steps(model, optimizer, 3, 0)
    state = checkpoint.training_state(model, optimizer, auxiliaries)
    checkpoint.save_tensors(tmp_path / "s.safetensors", state, {"epoch": 3})
    steps(model, optimizer, 3, 3)
    after = {k: v.clone() for k, v in model.state_dict().items()}

    torch.nn.init.zeros_(auxiliaries["Part"].weight)
    tensors, note = checkpoint.load_tensors(tmp_path / "s.safetensors")
    fresh = kind(model.parameters(), **options)
    checkpoint.restore_training(tensors, model, fresh, auxiliaries)
    assert note == {"epoch": 3}
    torch.testing.assert_close(dict(auxiliaries.state_dict()), kept, rtol=0, atol=0)
    steps(model, fresh, 3, 3)
    torch.testing.assert_close(model.state_dict(), after, rtol=0, atol=0)
    assert [p.name for p in tmp_path.iterdir()] == ["s.safetensors"]  # no temporary file stays


def test_damage_is_named(tmp_path, model):
    path = tmp_path / "s.safetensors"
    checkpoint.save_tensors(path, model.state_dict(), {})
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"s\.safetensors' is damaged"):
        checkpoint.load_tensors(path)
    with pytest.raises(UserError, match="missing"):
        checkpoint.load_tensors(tmp_path / "none.safetensors")


def test_channels_last_weights_are_stored_plainly(tmp_path):
    conv = torch.nn.Conv2d(4, 8, 3).to(memory_format=torch.channels_last)
    checkpoint.save_tensors(tmp_path / "c.safetensors", conv.state_dict(), {})
    tensors, _ = checkpoint.load_tensors(tmp_path / "c.safetensors")
    assert torch.equal(tensors["weight"], conv.weight)
