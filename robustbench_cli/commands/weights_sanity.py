"""Do maps depend on the weights? (Adebayo et al., 2018), https://arxiv.org/abs/1810.03292.

A map that stays the same when the weights are random says something of the image, or of the
architecture, and nothing of what the model has learned.
"""

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_cli.core.example_rng import stream_generator

INSENSITIVE = 0.5
"""The mean rank correlation above which a map is marked; the paper draws no line."""


def layers_from_the_top(model: nn.Module) -> list[str]:
    """Return the names of the modules with weights of their own, the last one first."""
    own = [n for n, module in model.named_modules() if [*module.parameters(recurse=False)]]
    return own[::-1]


def random_weights(model: nn.Module, seed: int) -> Iterator[tuple[str, nn.Module]]:
    """Yield copies with more and more random weights, each with the layer that came last.

    From the top, cascading (section 3.1); the last copy is random as a whole.  Every tensor is
    drawn from a normal distribution with its own mean and standard deviation, keyed by seed and
    name, in place of the initial distribution, which a model of the user's own does not tell.
    Running statistics stay.
    """
    other = copy.deepcopy(model)
    for name in layers_from_the_top(model):
        for part, value in other.get_submodule(name).named_parameters(recurse=False):
            draw = stream_generator(seed, "random weights", name, part)
            noise = torch.randn(value.shape, generator=draw, dtype=torch.float64).to(value)
            with torch.no_grad():
                spread = value.std(correction=0) if value.numel() > 1 else 0
                value.copy_(value.mean() + spread * noise)
        yield name, other


def rank_correlation(maps: Tensor, others: Tensor) -> np.ndarray:
    """Return Spearman's rank correlation (B) of maps (B, H, W) with others, in [-1, 1].

    Equal values share their mean rank.  NaN where one of the two maps is even or not finite.
    """
    from scipy.stats import rankdata  # type: ignore[import-untyped]

    pair = [each.flatten(1).double().cpu().numpy() for each in (maps, others)]
    known = np.isfinite(pair[0]).all(1) & np.isfinite(pair[1]).all(1)
    one, two = (rankdata(np.nan_to_num(each), axis=1) for each in pair)
    one, two = (each - each.mean(1, keepdims=True) for each in (one, two))
    length = np.sqrt((one**2).sum(1) * (two**2).sum(1))
    known &= length > 0
    found = np.full(len(one), np.nan)
    found[known] = (one * two).sum(1)[known] / length[known]
    return found
