"""Optimal transport between two batches of n and m examples with uniform weights.

A plan (n, m) is a non-negative matrix with row sums 1/n and column sums 1/m; its entry (i, j) is
the mass moved from example i to example j.  Every solver can be differentiated with respect to the
cost (n, m), and the gradient includes the dependence of the plan on the cost.
"""

import math

import torch
from torch import Tensor

Potentials = tuple[Tensor, Tensor]

_HALVINGS = 7
"""The solver starts with a regulariser 2^7 = 128 times larger and halves it seven times.

This warm start is for costs with clusters that exchange hardly any mass.
"""


def sinkhorn(cost: Tensor, regularizer: float) -> Tensor:
    """Return the converged plan (n, m) of entropy-regularised transport (Cuturi, 2013).

    https://arxiv.org/abs/1306.0895.  Sinkhorn's updates take thousands of iterations where examples
    form clusters; Newton steps on the same dual problem take dozens (Brauer et al., 2017,
    https://arxiv.org/abs/1710.06635).

    Args:
        cost: (n, m).
        regularizer: weight of the entropy, in units of the cost.
    """
    exact = cost.double()
    with torch.no_grad():
        v = torch.zeros_like(exact[0])
        for halving in range(_HALVINGS, -1, -1):
            u, v = _solve_dual(exact, regularizer * 2**halving, v)
    # At the solution a Newton step changes no value, but it carries the solution's gradient.
    return _plan(exact, regularizer, _newton_step(exact, regularizer, (u, v))).to(cost)


def legacy_sinkhorn(cost: Tensor, regularizer: float) -> Tensor:
    """Return the plan (n, m) of Feature Scattering's official solver, which stops before it
    converges.

    Up to 100 iterations, with 1e-6 added inside each logarithm, until the row potentials change by
    less than 0.1 in total: usually a few iterations.
    """
    n, m = cost.shape
    u, v = torch.zeros_like(cost[:, 0]), torch.zeros_like(cost[0])
    for _ in range(100):
        before = u
        u = u - regularizer * (_plan(cost, regularizer, (u, v)).sum(1) + 1e-6).log()
        u = u - regularizer * math.log(n)
        v = v - regularizer * (_plan(cost, regularizer, (u, v)).sum(0) + 1e-6).log()
        v = v - regularizer * math.log(m)
        if (u - before).abs().sum() < 0.1:
            break
    return _plan(cost, regularizer, (u, v))


def ipot(cost: Tensor, beta: float = 1.0) -> Tensor:
    """Return a plan (n, m) near the one without an entropic term, by proximal point iterations
    (IPOT).

    Xie et al. (2018), https://arxiv.org/abs/1802.04307, algorithm 1, with one inner iteration and
    50 outer ones, as in Feature Scattering's code.
    """
    n, m = cost.shape
    kernel, plan = (-cost / beta).exp(), torch.ones_like(cost)
    right = torch.full_like(cost[0], 1 / m)
    for _ in range(50):
        plan = kernel * plan
        left = 1 / (n * (plan @ right))
        right = 1 / (m * (left @ plan))
        plan = left[:, None] * plan * right
    return plan


def uniform_plan(cost: Tensor) -> Tensor:
    """Return the plan (n, m) that spreads every example's mass evenly over all others."""
    return torch.full_like(cost, 1 / cost.numel())


def identity_plan(cost: Tensor) -> Tensor:
    """Return the plan (n, n) that moves example i to example i."""
    return torch.eye(len(cost)).to(cost) / len(cost)


def _solve_dual(cost: Tensor, regularizer: float, v: Tensor) -> Potentials:
    """Return the dual potentials u (n) and v (m) of the regularised problem.

    Of one Sinkhorn update and one Newton step the one with the higher dual value is taken, until
    the row sums are right to a relative 1e-6 or 50 iterations are done.

    Args:
        v: column potentials (m) of a similar problem, to start from.
    """
    found = _sinkhorn_update(cost, regularizer, v)
    for _ in range(50):
        given = _plan(cost, regularizer, found).sum(1)
        if (len(cost) * given - 1).abs().amax() < 1e-6:
            break
        sweep = _sinkhorn_update(cost, regularizer, found[1])
        newton = _sinkhorn_update(cost, regularizer, _newton_step(cost, regularizer, found)[1])
        higher = _dual_value(newton) > _dual_value(sweep)
        u, v = (torch.where(higher, *pair) for pair in zip(newton, sweep, strict=True))
        found = u, v
    return found


def _plan(cost: Tensor, regularizer: float, potentials: Potentials) -> Tensor:
    """Return the plan (n, m) that belongs to dual potentials u (n) and v (m)."""
    u, v = potentials
    return ((u[:, None] + v - cost) / regularizer).exp()


def _sinkhorn_update(cost: Tensor, regularizer: float, v: Tensor) -> Potentials:
    """Return the potentials after one Sinkhorn update of the rows, then of the columns."""
    n, m = cost.shape
    u = -regularizer * (math.log(n) + ((v - cost) / regularizer).logsumexp(1))
    v = -regularizer * (math.log(m) + ((u[:, None] - cost) / regularizer).logsumexp(0))
    return u, v


def _dual_value(potentials: Potentials) -> Tensor:
    """Return the value of the dual objective, up to a constant, right after a Sinkhorn update."""
    u, v = potentials
    return u.mean() + v.mean()


def _newton_step(cost: Tensor, regularizer: float, potentials: Potentials) -> Potentials:
    """Return the potentials after one Newton step towards the marginals.

    Only the residual of the marginals is differentiated, so that a step at the solution carries the
    gradient of the solution (implicit differentiation).
    """
    u, v = potentials
    n, m = cost.shape
    plan = _plan(cost, regularizer, potentials)
    residual = torch.cat([1 / n - plan.sum(1), 1 / m - plan.sum(0)])
    plan = plan.detach()
    # The damping is far below 1/n; it keeps the system regular for examples that exchange no mass.
    system = torch.diag(torch.cat([plan.sum(1), plan.sum(0)]) + 1e-9 / n)
    system[:n, n:], system[n:, :n] = plan, plan.T
    # Adding a constant to u and taking it from v changes nothing: this term fixes the constant.
    sign = torch.cat([torch.ones_like(u), -torch.ones_like(v)])
    step = regularizer * torch.linalg.solve(system + sign.outer(sign) / (n * m), residual)
    return u + step[:n], v + step[n:]
