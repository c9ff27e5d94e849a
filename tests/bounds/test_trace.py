"""From models to graphs: what is refused, by name, and what is not taken for something else."""

import pytest
import torch
from torch import Tensor, nn

from robustbench_cli.bounds import InputBall, TracedModel, ibp_margins
from robustbench_cli.core.errors import UserError
from robustbench_cli.models.layout import laid_out
from tests.bounds.nets import net

IMAGE = torch.Size((1, 8, 8))


def around(layer: nn.Module) -> nn.Sequential:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), layer, nn.Flatten(), nn.Linear(72, 3))
    return net.eval().requires_grad_(False)


class Squares(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x


class OfTheImage(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


class OverTheBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


class Mixing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1, 2, 1, 12).reshape(-1, 2, 6, 6) + x.reshape(-1, 24).sum()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.GELU(), r"no bounds are known for GELU \(1\)"),
        (nn.Sequential(nn.ReLU(), nn.SiLU()), r"no bounds are known for SiLU \(1\.1\)"),
        (nn.BatchNorm2d(2, track_running_stats=False), r"BatchNorm2d without running statistics"),
        (nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"), "padding_mode='reflect'"),
        (nn.LeakyReLU(-1), "a slope of -1"),
        (Squares(), r"a product of two values that depend on the image \(1\)"),
        (Noisy(), r"randn_like \(1\)"),
        (OverTheBatch(), "a mean over examples"),
        (Mixing(), "mixes examples"),
        (OfTheImage(), "cannot be traced"),
    ],
)
def test_what_has_no_bounds_is_named(layer, message) -> None:
    with pytest.raises(UserError, match=message):
        TracedModel(around(layer)).lowered(IMAGE)


def test_training_mode_is_refused() -> None:
    for layer in (nn.BatchNorm2d(2), nn.Dropout(0.5)):
        with pytest.raises(UserError, match="in training mode"):
            TracedModel(around(layer).train()).lowered(IMAGE)
        TracedModel(around(layer).eval()).lowered(IMAGE)


def test_hooks_and_other_precisions_are_refused() -> None:
    model = around(nn.ReLU())
    with pytest.raises(UserError, match=r"in bfloat16 \(0.weight\)"):
        TracedModel(around(nn.ReLU()).bfloat16())
    model[1].register_forward_hook(lambda _module, _x, out: 2 * out)
    with pytest.raises(UserError, match=r"forward hooks \(1\)"):
        TracedModel(model)


def test_a_model_that_returns_no_logits_is_refused() -> None:
    with pytest.raises(UserError, match="does not return logits"):
        TracedModel(nn.Conv2d(1, 1, 3)).lowered(IMAGE)


class StandardisedConv(nn.Conv2d):
    """A convolution with a forward pass of its own."""

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) + 1e-5)
        return nn.functional.conv2d(x, w, self.bias, self.stride, self.padding)


class Renamed(nn.Conv2d):
    """A convolution with another name only."""


@pytest.mark.parametrize("kind", [StandardisedConv, Renamed])
def test_a_subclass_is_taken_for_what_it_computes(kind) -> None:
    torch.manual_seed(0)
    model = around(kind(2, 2, 3, padding=1)).double()
    x = torch.rand(3, *IMAGE).double()
    *_, logits = TracedModel(model).lowered(IMAGE, torch.float64).values(x)
    assert torch.allclose(logits, model(x), rtol=0, atol=1e-12)


def test_the_layout_for_this_machine_changes_nothing() -> None:
    model = net("batch norm and max-pooling")
    x = torch.rand(2, *IMAGE).double()
    before = list(TracedModel(model).lowered(IMAGE, torch.float64).values(x))
    after = list(
        TracedModel(laid_out(model, torch.device("cpu"))).lowered(IMAGE, torch.float64).values(x)
    )
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(before, after, strict=True))


def test_weights_are_read_anew_and_have_a_gradient() -> None:
    model, y = net("strided").requires_grad_(), torch.tensor([0, 1])
    traced, x = TracedModel(model), torch.rand(2, *IMAGE)
    ball = InputBall(x=x, eps=torch.full((2,), 0.05))
    before = ibp_margins(traced.lowered(IMAGE), ball, y, 4)
    before.sum().backward()
    gradients = [p.grad for p in model.parameters()]
    assert all(grad is not None and grad.abs().sum() > 0 for grad in gradients)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * p.grad
    after = ibp_margins(traced.lowered(IMAGE), ball, y, 4)
    assert after.sum() > before.sum()
