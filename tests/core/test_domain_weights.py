"""Weights over domains: exact projections, the end of their ascent, the least fooled one."""

import pytest
import torch
from torch import Tensor

from robustbench_cli.core.domain_weights import (
    first,
    least_wrong,
    onto_simplex,
    settled,
    towards_worst,
    uniform_weights,
)
from robustbench_cli.core.errors import UserError

LOSSES = torch.tensor([[1.0, 2.0, 4.0]]).double()


def rows(*values) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("point", "nearest"),
    [
        ((0.5, 0.5, 0.5), (1 / 3, 1 / 3, 1 / 3)),
        ((1.2, 0.0, -1.0), (1.0, 0.0, 0.0)),
        ((0.2, 0.9, 0.4), (1 / 30, 22 / 30, 7 / 30)),
        ((-5.0, -5.0, -4.0), (0.0, 0.0, 1.0)),
        ((0.3, 0.3, 0.4), (0.3, 0.3, 0.4)),
    ],
)
def test_projections_by_hand(point, nearest):
    torch.testing.assert_close(onto_simplex(rows(point)), rows(nearest), rtol=0, atol=1e-12)


def test_the_projection_is_on_the_simplex_and_nowhere_is_nearer():
    """The variational inequality: (v - p) . (u - p) <= 0 for every u of the simplex."""
    v = 2 * torch.randn(200, 5).double()
    p = onto_simplex(v)
    assert (p >= 0).all()
    torch.testing.assert_close(p.sum(1), torch.ones(200).double())
    torch.testing.assert_close(onto_simplex(p), p)
    corners = torch.eye(5).double()
    assert (((v - p) @ corners.T) - ((v - p) * p).sum(1, keepdim=True) <= 1e-12).all()


def test_the_projection_brings_no_two_points_further_apart():
    size = torch.logspace(-2, 1, 200).double()[:, None]
    u = size * torch.randn(200, 5).double()
    v = u + size / 4 * torch.randn(200, 5).double()
    assert ((onto_simplex(u) - onto_simplex(v)).norm(dim=1) <= (u - v).norm(dim=1) + 1e-12).all()


@pytest.mark.parametrize(
    ("gamma", "weights"), [(3.0, (0, 1 / 6, 5 / 6)), (10.0, (0.2, 0.3, 0.5)), (1.0, (0, 0, 1))]
)
def test_steps_of_a_fiftieth_end_where_the_formula_says(gamma, weights):
    expected = rows(tuple(map(float, weights)))
    torch.testing.assert_close(settled(LOSSES, gamma), expected, rtol=0, atol=1e-12)
    w = uniform_weights(LOSSES)
    for _ in range(5000):
        w = towards_worst(w, LOSSES, gamma, rows((1 / 50,)))
    torch.testing.assert_close(w, expected, rtol=0, atol=1e-9)


def test_gamma_leads_from_the_worst_domain_to_the_average():
    torch.testing.assert_close(settled(LOSSES, 1e-9), rows((0.0, 0.0, 1.0)))
    torch.testing.assert_close(settled(LOSSES, 1e9), uniform_weights(LOSSES))


def test_a_pace_of_zero_keeps_any_weights():
    fixed = first((0.5, 0.25, 0.25), torch.empty(4, 3))
    torch.testing.assert_close(
        towards_worst(fixed, torch.randn(4, 3), 3.0, torch.zeros(4, 1)), fixed
    )


def test_equal_losses_keep_weights_alike_and_an_order_of_domains_is_no_matter():
    alike = torch.full((2, 4), 7.0)
    w = uniform_weights(alike)
    torch.testing.assert_close(towards_worst(w, alike, 3.0, torch.ones(2, 1)), w)
    losses, order = torch.randn(6, 4), torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(settled(losses[:, order], 2.0), settled(losses, 2.0)[:, order])


def test_as_many_fixed_weights_as_domains():
    with pytest.raises(UserError, match="2 weights are given for 3 domains"):
        first((0.5, 0.5), torch.empty(4, 3))


def test_all_domains_are_wrong_if_the_least_wrong_one_is():
    logits, y = torch.randn(500, 3, 4), torch.randint(4, (500, 3))
    shown, label = least_wrong(logits, y)
    assert torch.equal(shown.argmax(1) != label, (logits.argmax(2) != y).all(1))


def test_of_two_domains_with_tied_classes_the_right_one_counts():
    """argmax takes the first of equal logits, so a margin of zero is right here and wrong there."""
    logits, y = torch.zeros(1, 2, 3), torch.tensor([[1, 0]])
    shown, label = least_wrong(logits, y)
    assert shown.argmax(1) == label


def test_one_domain_is_left_as_it_is():
    logits, y = torch.randn(5, 4), torch.arange(5) % 4
    assert least_wrong(logits, y) == (logits, y)
