"""The adversarial loss around the weights (Wu et al., 2020), https://arxiv.org/abs/2004.05884.

Along random directions whose filters are as long as the model's own (Li et al., 2018),
https://arxiv.org/abs/1712.09913.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.gradient_ascent import Ascent, ascend
from robustbench_cli.core.losses import cross_entropy
from robustbench_cli.core.threat import Threat, over
from robustbench_cli.data import Split
from robustbench_cli.evaluation.verifier import predict, unchanged_model

_BATCH = 256
"""Examples attacked at once."""
PGD10 = Ascent(steps=10, step=0.25)
"""What makes the adversarial examples: PGD-10, as in the paper."""


def landscape(
    model: nn.Module,
    data: Split,
    threat: Threat,
    seed: int,
    alphas: Sequence[float],
    directions: int,
    done: Callable[[int, int], None] = lambda _done, _of: None,
) -> list[list[float]]:
    """The loss at the weights w + alpha * d, for each direction d one number per alpha.

    At every point adversarial examples are made anew, for the model with those weights; each
    example has the same random start everywhere.  The model is given back as it was.

    Args:
        data: examples on the device of the model.
        done: is told how many of all points are known.
    """
    found = []
    for index in range(directions):
        step, losses = direction(model, seed, index), []
        for alpha in alphas:
            with unchanged_model(model), move_along(model, step, alpha):
                losses.append(adversarial_loss(model, data, threat, seed))
            done(index * len(alphas) + len(losses), directions * len(alphas))
        found.append(losses)
    return found


def adversarial_loss(
    model: nn.Module, data: Split, threat: Threat, seed: int, climb: Ascent = PGD10
) -> float:
    """Mean cross-entropy at the last iterate of the attack on each example."""
    total = 0.0
    for rows in torch.split(torch.arange(len(data), device=data.y.device), _BATCH):
        x, y = data.images(rows), data.y[rows]
        noise = Noise(seed, rows, "landscape")
        x_adv = ascend(model, cross_entropy, y, x, threat, noise, climb)
        total += float(cross_entropy(predict(model, x_adv), y).sum(dtype=torch.float64))
    return total / len(data)


def direction(model: nn.Module, seed: int, index: int) -> dict[str, Tensor]:
    """A Gaussian direction in which every filter has the norm of the model's (Li et al., 2018).

    A filter is what makes one output channel or one unit.  Biases and BatchNorm parameters stay.
    The draw is keyed by the parameter's name: models of one architecture get the same one.
    """
    found = {}
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            filters = torch.arange(len(weight), device=weight.device)
            drawn = Noise(seed, filters, f"direction {index}/{name}").normal(weight.detach())
            scale = _lengths(weight.detach()) / _lengths(drawn).clamp_min(1e-30)
            found[name] = drawn * over(scale, weight)
    return found


@contextmanager
def move_along(model: nn.Module, step: Mapping[str, Tensor], alpha: float) -> Iterator[None]:
    """The weights at w + alpha * step; afterwards they are what they were, bit for bit."""
    weights = {name: weight for name, weight in model.named_parameters() if name in step}
    kept = {name: weight.detach().clone() for name, weight in weights.items()}
    try:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.add_(step[name], alpha=alpha)
        yield
    finally:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(kept[name])


def _lengths(weight: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(weight.flatten(1), dim=1)
    return norms
