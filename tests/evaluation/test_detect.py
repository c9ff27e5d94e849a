"""The figure of detection against scikit-learn's, and what detectors are shown."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from robustbench_cli.evaluation.detect import auroc, seen, threshold_at
from robustbench_cli.evaluation.tensors import Tensors


@pytest.mark.parametrize("levels", [2, 5, 10_000])
@pytest.mark.parametrize("count", [10, 500])
def test_auroc_is_that_of_scikit_learn(levels, count):
    """Few levels make many ties."""
    draw = np.random.default_rng(levels + count)
    wrong = draw.random(count) < 0.4
    wrong[:2] = True, False
    suspicion = np.floor((draw.random(count) + 0.3 * wrong) * levels)
    assert auroc(suspicion, wrong) == pytest.approx(roc_auc_score(wrong, suspicion))


def test_auroc_counts_pairs():
    wrong = np.array([True, True, False, False])
    assert auroc(np.array([3.0, 2.0, 1.0, 0.0]), wrong) == 1
    assert auroc(np.array([0.0, 1.0, 2.0, 3.0]), wrong) == 0
    assert auroc(np.array([1.0, 1.0, 1.0, 1.0]), wrong) == 0.5
    assert auroc(np.array([2.0, 0.0, 2.0, 1.0]), wrong) == pytest.approx((0.5 + 1 + 0 + 0) / 4)


@pytest.mark.parametrize("all_the_same", [True, False])
def test_there_is_no_auroc_without_both_kinds(all_the_same):
    assert auroc(np.arange(4.0), np.full(4, all_the_same)) is None


def test_detectors_see_logits_and_what_the_last_layer_reads(model, batch):
    x, y = batch
    model.eval()
    found = seen(model, Tensors(x, y), batch=4)
    torch.testing.assert_close(found.logits, model(x))
    torch.testing.assert_close(found.features, model.features(x))
    assert torch.equal(found.prediction, model(x).argmax(1))
    assert not found.features.requires_grad


def test_a_threshold_flags_as_many_clean_images_as_it_may():
    scores = np.random.default_rng(0).permutation(200) / 10
    for fpr, count in ((0.01, 2), (0.05, 10), (0.001, 0)):
        threshold, flagged = threshold_at(scores, fpr)
        assert flagged == count == (scores > threshold).sum()
    assert threshold_at(scores, 0.05)[0] == pytest.approx((18.9 + 19.0) / 2)
    # Tied scores are all accepted, or all flagged.
    assert threshold_at(np.array([0.0, 1, 1, 1]), 0.5)[1] == 0
    assert threshold_at(np.array([0.0, 1, 1, 1]), 0.75) == (0.5, 3)
