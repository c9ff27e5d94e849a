"""Networks whose forward pass runs a solver for a fixed number of iterations.

Such a network answers as the truncated solver does, and so do its gradients: whoever evaluates it
should try other numbers of iterations, too (Carlini et al., 2019,
https://arxiv.org/abs/1902.06705).
"""

import copy

from torch import nn


class UnrolledSolver(nn.Module):
    """A part of a network that takes ``iterations`` steps of a solver in its forward pass.

    With none of them it is the feed-forward network that the solver starts from.  The number
    changes no parameter: a network's weights go with any.
    """

    iterations: int
    """The number of steps, T; 0 or more."""


def unrolled_iterations(model: nn.Module) -> int:
    """Return the iterations of the longest solver inside a model; 0 where it has none."""
    found = (m.iterations for m in model.modules() if isinstance(m, UnrolledSolver))
    return max(found, default=0)


def with_iterations(model: nn.Module, iterations: int) -> nn.Module:
    """Return a copy of a model whose solvers take so many iterations; weights, too, are copied.

    Whatever stands around a solver, such as an input defense, stays as it is.
    """
    other = copy.deepcopy(model)
    for module in other.modules():
        if isinstance(module, UnrolledSolver):
            module.iterations = iterations
    return other
