"""Features by name, of registered models and of a user's own."""

import pytest
import torch
from torch import nn

from robustbench_cli.core.errors import UserError
from robustbench_cli.models.taps import EMBEDDING, last_layer, tapped


def test_every_pass_records_the_named_features(model, batch):
    x, _ = batch
    with tapped(model.eval(), [EMBEDDING, "body.conv2"]) as found:
        logits = model(x)
    torch.testing.assert_close(model.head(found[EMBEDDING]), logits)
    body = model.body
    first = body.relu1(body.bn1(body.conv1(model.normalize(x))))
    torch.testing.assert_close(found["body.conv2"], body.conv2(first))
    assert found[EMBEDDING].requires_grad
    before = dict(found)
    model(x + 0.1)  # closed: nothing is left behind any more
    assert all(found[name] is before[name] for name in before)


def test_a_user_s_net_has_an_embedding_too():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    assert last_layer(net) is net[3]
    with tapped(net, [EMBEDDING, "1"]) as found:
        net(torch.rand(5, 1, 2, 2))
    torch.testing.assert_close(found[EMBEDDING], found["1"].relu())


def test_an_absent_module_is_named(model):
    wrong = pytest.raises(UserError, match=r"no part 'body\.conv4'.*did you mean 'body\.conv")
    with wrong, tapped(model, ["body.conv4"]):
        pass
    with pytest.raises(UserError, match="no last linear layer"):
        last_layer(nn.Conv2d(1, 1, 1))
