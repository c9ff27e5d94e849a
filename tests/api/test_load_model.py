"""Models by name from Python: what ``--model`` and the options beside it do."""

from pathlib import Path

import pytest
import torch
from torch import nn

from robustbench_cli import Threat, UserError, attack, evaluate, load_model

NET = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(64, 4)
    def forward(self, x):
        return {"logits": self.layer(x.flatten(1)), "features": x}
"""
X = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def net(tmp_path):
    (tmp_path / "net.py").write_text(NET)
    return f"{tmp_path / 'net.py'}:Net"


def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(64, 4)


def test_a_name_gives_logits(net, tmp_path):
    assert torch.allclose(load_model(net, X)(X), layer()(X.flatten(1)))
    halved = load_model(net, X, mean=0.5, std=[0.5])
    assert torch.allclose(halved(X), layer()((2 * X - 1).flatten(1)), atol=1e-6)
    assert halved.settings["mean"] == [0.5]
    cut = load_model(net, X, class_map={"cat": 3, "dog": [0, 1]})
    z = layer()(X.flatten(1))
    assert torch.allclose(cut(X), torch.stack([z[:, 3], z[:, :2].amax(1)], 1))
    torch.save({"a": layer().state_dict(), "ema": layer().state_dict()}, tmp_path / "w.pt")
    with pytest.raises(UserError, match="--weights-key"):
        load_model(net, X, weights=tmp_path / "w.pt")
    wrapped = {f"layer.{key}": torch.zeros_like(v) for key, v in layer().state_dict().items()}
    torch.save({"model": wrapped}, tmp_path / "w.pt")
    assert not load_model(net, X, weights=tmp_path / "w.pt")(X).any()


def test_a_name_a_module_and_its_output_are_evaluated_alike(net):
    y = layer()(X.flatten(1)).argmax(1)
    settings = {"attacks": "pgd3", "threat": Threat("Linf", 0.1), "checks": False}
    named = evaluate(net, X, y, **settings)
    loaded = evaluate(load_model(net, X), X, y, **settings)
    plain = evaluate(nn.Sequential(nn.Flatten(), layer()), X, y, **settings)
    for found in (named, loaded):
        assert found.clean_accuracy == plain.clean_accuracy == 1
        assert found.robust_accuracy == plain.robust_accuracy
    assert named.record.config["model"] == {"name": net, "output": "logits"}
    assert named.record.subject == net
    ours, theirs = (
        attack("pgd3", each, X, y, threat=Threat("Linf", 0.1))
        for each in (net, nn.Sequential(nn.Flatten(), layer()))
    )
    assert torch.equal(ours.x, theirs.x)


def test_one_logit_of_a_module(net):
    y = torch.tensor([0, 1, 0, 1, 0, 1])
    one = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    found = evaluate(one, X, y, attacks="fgsm", threat=Threat("Linf", 0.1), checks=False)
    assert found.clean_accuracy == int(((one(X)[:, 0] > 0).long() == y).sum()) / 6
    assert any("0 and z" in note for note in found.notes)


@pytest.mark.parametrize(
    ("name", "message"),
    [(Path("net.py"), "an nn.Module or a name"), ("tim:resnet", "unknown model 'tim:resnet'")],
)
def test_what_is_no_model(name, message):
    with pytest.raises(UserError, match=message):
        evaluate(name, X, [0] * 6, attacks="fgsm", threat=Threat("Linf", 0.1))
