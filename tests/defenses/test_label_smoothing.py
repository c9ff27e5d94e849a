"""Both conventions of label smoothing."""

import pytest
import torch
import torch.nn.functional as F

from robustbench_cli.core.losses import cross_entropy
from robustbench_cli.defenses.label_smoothing import LabelSmoothing

LOGITS, Y = torch.randn(8, 10).double(), torch.arange(8)


def test_over_all_classes_equals_torch():
    ours = LabelSmoothing(amount=0.1).criterion(cross_entropy)(LOGITS, Y)
    theirs = F.cross_entropy(LOGITS, Y, label_smoothing=0.1, reduction="none")
    torch.testing.assert_close(ours, theirs)


def test_over_the_others_the_label_keeps_one_minus_amount():
    ours = LabelSmoothing(amount=0.5, over="others").criterion(cross_entropy)(LOGITS, Y)
    target = torch.full((8, 10), 0.5 / 9).double()
    target[range(8), Y] = 0.5
    by_hand = -(target * F.log_softmax(LOGITS, 1)).sum(1)
    torch.testing.assert_close(ours, by_hand)


def test_zero_is_the_plain_criterion():
    ours = LabelSmoothing(amount=0).criterion(cross_entropy)(LOGITS, Y)
    assert ours.tolist() == pytest.approx(cross_entropy(LOGITS, Y).tolist())
