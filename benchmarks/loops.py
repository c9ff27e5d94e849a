"""One update of the weights as the official training scripts structure it, written out plainly.

Float32, contiguous (NCHW), the weights asking for gradients throughout, images on the CPU until
the update begins.  Random starts are handed in, so that both sides of a benchmark climb from the
same points; drawing them is nobody's time here.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Update = Callable[[nn.Module, torch.optim.Optimizer, Tensor, Tensor, Tensor, int], float]
"""(model, optimiser, images, labels, start, inner steps) to the loss that was stepped on."""


def pgd_at(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    start: Tensor,
    steps: int,
    eps: float = 8 / 255,
    size: float = 2 / 255,
) -> float:
    """Rice, Wong & Kolter (2020), https://github.com/locuslab/robust_overfitting.

    In train mode throughout.  Each inner step calls ``backward``, which forms the gradients of
    the weights as well; a pass afterwards finds the restart to keep (there is one); the clean
    images go through the model after the step, for the log.
    """
    device = next(model.parameters()).device
    x, y, delta = x.to(device), y.to(device), start.to(device)
    delta.requires_grad_()
    for _ in range(steps):
        F.cross_entropy(model(x + delta), y).backward()
        moved = torch.clamp(delta + size * _gradient(delta).sign(), min=-eps, max=eps)
        moved = torch.max(torch.min(moved, 1 - x), 0 - x)
        delta.data = moved.detach()
        _gradient(delta).zero_()
    last = F.cross_entropy(model(x + delta), y, reduction="none")
    kept = torch.zeros_like(x)
    kept[last >= 0] = delta.detach()[last >= 0]
    loss = F.cross_entropy(model(torch.clamp(x + kept, 0, 1)), y)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    F.cross_entropy(model(x), y).item()
    return loss.item()


def trades(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    start: Tensor,
    steps: int,
    eps: float = 8 / 255,
    size: float = 8 / 255 * 7 / 31,
    beta: float = 6.0,
) -> float:
    """Zhang et al. (2019), https://github.com/yaodongyu/TRADES.

    Evaluation mode inside, train mode outside.  Each inner step classifies the clean images anew,
    and so does the outer loss, which makes three passes.
    """
    device = next(model.parameters()).device
    x, y = x.to(device), y.to(device)
    divergence = nn.KLDivLoss(reduction="sum")
    model.eval()
    x_adv = x + start.to(device)
    for _ in range(steps):
        x_adv.requires_grad_()
        target = F.softmax(model(x), dim=1)
        loss = divergence(F.log_softmax(model(x_adv), dim=1), target)
        grad = torch.autograd.grad(loss, [x_adv])[0]
        x_adv = x_adv.detach() + size * grad.sign()
        x_adv = torch.min(torch.max(x_adv, x - eps), x + eps).clamp(0, 1)
    model.train()
    optimizer.zero_grad()
    natural = F.cross_entropy(model(x), y)
    robust = divergence(F.log_softmax(model(x_adv), dim=1), F.softmax(model(x), dim=1)) / len(x)
    loss = natural + beta * robust
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.item()


def _gradient(leaf: Tensor) -> Any:
    assert leaf.grad is not None
    return leaf.grad
