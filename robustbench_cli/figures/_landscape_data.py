"""The adversarial loss at weights around a model's own (Wu et al., 2020).

https://arxiv.org/abs/2004.05884.  Along random filter-normalised directions (Li et al., 2018),
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
"""Number of examples that are attacked at once."""
PGD10 = Ascent(steps=10, step=0.25)
"""The attack that makes the adversarial examples: PGD-10, as in the paper."""


def landscape(
    model: nn.Module,
    data: Split,
    threat: Threat,
    seed: int,
    alphas: Sequence[float],
    directions: int,
    done: Callable[[int, int], None] = lambda _done, _of: None,
) -> list[list[float]]:
    """Return the mean adversarial loss at weights w + alpha d: for each direction d one number per
    alpha.

    Adversarial examples are made anew at every point, for the model with those weights; each
    example has the same random start everywhere.  The model's weights and buffers are restored.

    Args:
        data: the examples, on the device of the model.
        threat: the ball of the attack.
        alphas: factors of the direction; 0 is the model itself.
        directions: number of random directions.
        done: called with the number of points that are finished and of all points.
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
    """Return the mean cross-entropy, in nats, at the last iterate of the attack on each example.

    Args:
        climb: the attack's steps.
    """
    total = 0.0
    for rows in torch.split(torch.arange(len(data), device=data.y.device), _BATCH):
        x, y = data.images(rows), data.y[rows]
        noise = Noise(seed, rows, "landscape")
        x_adv = ascend(model, cross_entropy, y, x, threat, noise, climb)
        total += float(cross_entropy(predict(model, x_adv), y).sum(dtype=torch.float64))
    return total / len(data)


def direction(model: nn.Module, seed: int, index: int) -> dict[str, Tensor]:
    """Return a Gaussian direction, by parameter name, whose filters have the norms of the model's
    own.

    Filter normalisation (Li et al., 2018); a filter is the weights of one output channel or unit.
    Biases and BatchNorm parameters are left out.  The draw is keyed by the parameter's name: models
    of one architecture get the same direction before normalisation.
    """
    found = {}
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            filters = torch.arange(len(weight), device=weight.device)
            drawn = Noise(seed, filters, f"direction {index}/{name}").normal(weight.detach())
            scale = _filter_norms(weight.detach()) / _filter_norms(drawn).clamp_min(1e-30)
            found[name] = drawn * over(scale, weight)
    return found


@contextmanager
def move_along(model: nn.Module, step: Mapping[str, Tensor], alpha: float) -> Iterator[None]:
    """Set the weights to w + alpha * step while the context is open, then restore them bit for bit.

    Args:
        step: direction of each parameter, by name.
    """
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


def _filter_norms(weight: Tensor) -> Tensor:
    """Return the Euclidean norm of each filter (rows of the first dimension)."""
    norms: Tensor = torch.linalg.vector_norm(weight.flatten(1), dim=1)
    return norms
