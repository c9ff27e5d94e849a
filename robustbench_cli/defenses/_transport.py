"""Optimal transport between two batches: plans (n, m), every example of a batch weighing the same.

A plan says how much of each row's 1/n goes to each column, which takes 1/m.  All of them can be
differentiated with respect to the cost (n, m), the solver's own dependence on it included.
"""

import math

import torch
from torch import Tensor

Potentials = tuple[Tensor, Tensor]

_HALVINGS = 7
"""The regulariser starts 128 times larger: a warm start for clusters that hardly exchange mass."""


def sinkhorn(cost: Tensor, regularizer: float) -> Tensor:
    """The plan with an entropic term (Cuturi, 2013, https://arxiv.org/abs/1306.0895), converged.

    Sinkhorn's updates take thousands of rounds where examples form clusters; Newton steps on the
    same dual problem take dozens (Brauer et al., 2017, https://arxiv.org/abs/1710.06635).
    """
    exact = cost.double()
    with torch.no_grad():
        v = torch.zeros_like(exact[0])
        for halving in range(_HALVINGS, -1, -1):
            u, v = _solved(exact, regularizer * 2**halving, v)
    # At the solution a Newton step changes nothing, but it carries the solution's gradient.
    return _plan(exact, regularizer, _newton(exact, regularizer, (u, v))).to(cost)


def hurried_sinkhorn(cost: Tensor, regularizer: float) -> Tensor:
    """Feature Scattering's official solver: a few of at most 100 rounds, constants and all."""
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
    """Near the plan without an entropic term, by proximal points (Xie et al., 2018).

    https://arxiv.org/abs/1802.04307, algorithm 1 with one inner round and, as Feature Scattering's
    code, 50 outer ones.
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
    """Everything to everywhere."""
    return torch.full_like(cost, 1 / cost.numel())


def identity(cost: Tensor) -> Tensor:
    """Every row to its own column."""
    return torch.eye(len(cost)).to(cost) / len(cost)


def _solved(cost: Tensor, regularizer: float, v: Tensor) -> Potentials:
    """The dual potentials, from those of the columns at a similar problem."""
    found = _sweep(cost, regularizer, v)
    for _ in range(50):
        given = _plan(cost, regularizer, found).sum(1)
        if (len(cost) * given - 1).abs().amax() < 1e-6:
            break
        sweep = _sweep(cost, regularizer, found[1])
        newton = _sweep(cost, regularizer, _newton(cost, regularizer, found)[1])
        found = newton if _height(newton) > _height(sweep) else sweep
    return found


def _plan(cost: Tensor, regularizer: float, potentials: Potentials) -> Tensor:
    u, v = potentials
    return ((u[:, None] + v - cost) / regularizer).exp()


def _sweep(cost: Tensor, regularizer: float, v: Tensor) -> Potentials:
    """One round of Sinkhorn's updates: the best rows for these columns, then the reverse."""
    n, m = cost.shape
    u = -regularizer * (math.log(n) + ((v - cost) / regularizer).logsumexp(1))
    v = -regularizer * (math.log(m) + ((u[:, None] - cost) / regularizer).logsumexp(0))
    return u, v


def _height(potentials: Potentials) -> Tensor:
    """What the dual problem maximises, up to a constant, for potentials after a sweep."""
    u, v = potentials
    return u.mean() + v.mean()


def _newton(cost: Tensor, regularizer: float, potentials: Potentials) -> Potentials:
    """One step towards the marginals; only what they lack now is differentiated."""
    u, v = potentials
    n, m = cost.shape
    plan = _plan(cost, regularizer, potentials)
    lacking = torch.cat([1 / n - plan.sum(1), 1 / m - plan.sum(0)])
    plan = plan.detach()
    # The damping is far below a share of 1/n; it holds pairs that exchange nothing with the rest.
    system = torch.diag(torch.cat([plan.sum(1), plan.sum(0)]) + 1e-9 / n)
    system[:n, n:], system[n:, :n] = plan, plan.T
    # Adding to u what v loses changes nothing: pin that direction down.
    sign = torch.cat([torch.ones_like(u), -torch.ones_like(v)])
    step = regularizer * torch.linalg.solve(system + sign.outer(sign) / (n * m), lacking)
    return u + step[:n], v + step[n:]
