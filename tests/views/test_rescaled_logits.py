"""Logits in the range in which losses work, and the predictions of the model."""

import pytest
import torch
from torch import nn

from robustbench_cli.core.losses import cross_entropy
from robustbench_cli.views.rescaled_logits import RescaledLogits


class Changed(nn.Module):
    """A net whose logits another function makes its outputs of."""

    def __init__(self, net, change):
        super().__init__()
        self.net, self.change = net, change

    def forward(self, x):
        return self.change(self.net(x))


CALLED_FOR = {
    "large": lambda z: 1e4 * z,
    "small": lambda z: 1e-6 * z,
    "probabilities": lambda z: z.softmax(1),
    "percentages": lambda z: 100 * (3 * z).softmax(1),
    "saturated": lambda z: nn.Softmax(1)(200 * z),
    "twice": lambda z: torch.softmax(nn.functional.softmax(60 * z, 1), 1),
    "by hand": lambda z: z.exp() / z.exp().sum(1, keepdim=True),
}


@pytest.mark.parametrize("change", CALLED_FOR.values(), ids=CALLED_FOR)
def test_predictions_are_the_model_s_and_the_gap_is_usual(change, digits_model, subject):
    net, x, y = digits_model
    model = Changed(net, change)
    view = RescaledLogits().build(subject(model, x, y))
    logits = view(x)
    assert torch.equal(logits.argmax(1), model(x).argmax(1))
    top = logits.topk(2, dim=1).values
    assert float((top[:, 0] - top[:, 1]).median()) == pytest.approx(5, rel=1e-3)
    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(cross_entropy(view(leaf), y).sum(), leaf)
    assert grad.flatten(1).any(1).all()
    assert grad.isfinite().all()


def test_it_is_not_called_for_where_losses_work(digits_model, subject):
    net, x, y = digits_model
    for change in (lambda z: z, lambda z: z.log_softmax(1), lambda z: z / 5, lambda z: z * 1.5):
        assert RescaledLogits().build(subject(Changed(net, change), x, y)) is None
