"""Losses against the formulas."""

import math

import pytest
import torch

from robustbench_cli.core.losses import (
    coded_complement_entropy,
    cross_entropy,
    cw_margin,
    dlr,
    dlr_targeted,
    guided_complement_entropy,
    hits,
    kl,
    margin,
)


def test_values_by_hand():
    logits = torch.tensor([[math.log(0.2), math.log(0.8)]], dtype=torch.float64)
    y = torch.tensor([0])
    assert cross_entropy(logits, y).item() == pytest.approx(-math.log(0.2))
    assert margin(logits, y).item() == pytest.approx(math.log(4))
    target = torch.zeros(1, 2, dtype=torch.float64)
    by_hand = 0.5 * math.log(0.5 / 0.2) + 0.5 * math.log(0.5 / 0.8)
    assert kl(logits, target).item() == pytest.approx(by_hand)
    assert kl(logits, logits).item() == pytest.approx(0, abs=1e-12)


def test_logit_ratios_are_the_official_ones():
    """Against Croce & Hein's own lines: sorted logits, indices counted from the end."""
    logits, y = torch.randn(40, 6, dtype=torch.float64), torch.randint(0, 6, (40,))
    target = (y + torch.randint(1, 6, (40,))) % 6
    each, (sorted_, order) = torch.arange(40), logits.sort(dim=1)
    right = (order[:, -1] == y).double()
    gap = logits[each, y] - sorted_[:, -2] * right - sorted_[:, -1] * (1 - right)
    expected = -gap / (sorted_[:, -1] - sorted_[:, -3] + 1e-12)
    torch.testing.assert_close(dlr(logits, y), expected)
    spread = sorted_[:, -1] - 0.5 * (sorted_[:, -3] + sorted_[:, -4]) + 1e-12
    expected = -(logits[each, y] - logits[each, target]) / spread
    torch.testing.assert_close(dlr_targeted(logits, y, target), expected)
    assert ((dlr(logits, y) > 0) == (logits.argmax(1) != y)).all()


@pytest.mark.parametrize("change", [lambda z: 7 * z, lambda z: z - 50, lambda z: z + 50])
def test_logit_ratios_do_not_move_with_scale_or_shift(change):
    logits, y = torch.randn(20, 6, dtype=torch.float64), torch.randint(0, 6, (20,))
    torch.testing.assert_close(dlr(change(logits), y), dlr(logits, y))
    target = (y + 1) % 6
    expected = dlr_targeted(logits, y, target)
    torch.testing.assert_close(dlr_targeted(change(logits), y, target), expected)


def test_kl_gradients_are_those_of_the_specification():
    z, t = (torch.randn(3, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    kl(z, t).sum().backward()
    q, p = z.softmax(1), t.softmax(1)
    torch.testing.assert_close(z.grad, (q - p).detach())
    inner = p.log() - q.log()
    expected = p * (inner - (p * inner).sum(1, keepdim=True))
    torch.testing.assert_close(t.grad, expected.detach())


@pytest.mark.parametrize("shift", [-50.0, 50.0, 1e4])
def test_margins_do_not_move_with_the_logits(shift):
    """Masking the true class by 0 or -1000 instead of -inf breaks for shifted logits."""
    logits, y = torch.randn(20, 6, dtype=torch.float64), torch.randint(0, 6, (20,))
    torch.testing.assert_close(margin(logits + shift, y), margin(logits, y))
    assert ((margin(logits, y) > 0) == (logits.argmax(1) != y)).all()


def test_cw_keeps_climbing_until_fifty_past_the_boundary():
    y = torch.tensor([0])
    below = torch.tensor([[0.0, 49.0]], requires_grad=True)
    above = torch.tensor([[0.0, 51.0]], requires_grad=True)
    (cw_margin(below, y) + cw_margin(above, y)).sum().backward()
    assert below.grad.abs().sum() > 0
    assert above.grad.abs().sum() == 0


def test_low_precision_logits_are_widened_first():
    logits = torch.randn(4, 10).bfloat16()
    assert cross_entropy(logits, torch.zeros(4, dtype=torch.long)).dtype == torch.float32


def test_a_mixed_label_counts_by_the_share_that_was_predicted():
    logits = torch.eye(3)[[0, 2, 1]]
    assert hits(logits, torch.tensor([0, 1, -100])).tolist() == [True, False, False]
    shares = torch.tensor([[0.7, 0.3, 0.0], [0.1, 0.0, 0.9], [0.5, 0.0, 0.5]])
    assert hits(logits, shares).tolist() == pytest.approx([0.7, 0.9, 0.0])


@pytest.mark.parametrize(("lead", "misled"), [(4.0, False), (30.0, True)])
def test_the_code_of_gce_makes_a_sure_class_surer(lead, misled):
    """Its added 1e-7 outweighs the other classes' probabilities once these are smaller."""
    y = torch.tensor([0])
    logits = torch.tensor([[lead, 0.3, 0.1, -0.2]], dtype=torch.float64, requires_grad=True)
    (exact,) = torch.autograd.grad(guided_complement_entropy(logits, y).sum(), logits)
    (coded,) = torch.autograd.grad(coded_complement_entropy(logits, y).sum(), logits)
    assert exact[0, 0] < 0
    assert (coded[0, 0] > 0) == misled
