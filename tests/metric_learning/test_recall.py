"""Recall@k, mAP@R and the detector of collapse: hand values."""

import pytest
import torch

from robustbench_cli.metric_learning._recall import COLLAPSED, EmbeddingGallery, Ranked, recall_at_1

# On a line: 0 a, 1 b, 2.5 a, 4.5 b, 5 a.
LINE = EmbeddingGallery(
    torch.tensor([[0.0], [1.0], [2.5], [4.5], [5.0]]), torch.tensor([0, 1, 0, 1, 0])
)


def ranked(place):
    own = torch.tensor([place])
    return Ranked.of(LINE, LINE.z[own], LINE.y[own], own)


def test_a_query_does_not_find_itself():
    # Nearest to each: 1 (b), 0 (a), 1 (b), 5 (a), 4.5 (b): all of the other class.
    assert recall_at_1(LINE) == 0
    assert not ranked(0).recall(1)
    # Were its own image there, each would find itself.
    assert Ranked.of(LINE, LINE.z, LINE.y, None).recall(1).all()


def test_recall_counts_the_k_nearest():
    first = ranked(0)  # in order: b, a, b, a
    assert first.same.tolist() == [[False, True, False, True]]
    assert [bool(first.recall(k)) for k in (1, 2, 4, 8)] == [False, True, True, True]


def test_average_precision_by_hand():
    first = ranked(0)
    assert first.relevant.tolist() == [2]
    assert first.average_precision().tolist() == [0.5 / 2]  # of two places, the second is right
    assert first.average_precision(4).tolist() == [(1 / 2 + 2 / 4) / 4]
    assert first.whole_average_precision().tolist() == [(1 / 2 + 2 / 4) / 2]
    perfect = EmbeddingGallery(
        torch.tensor([[0.0], [0.1], [0.2], [9.0]]), torch.tensor([0, 0, 0, 1])
    )
    own = torch.tensor([0, 3])
    both = Ranked.of(perfect, perfect.z[own], perfect.y[own], own)
    assert both.average_precision().tolist() == [1.0, 0.0]  # the last has none of its class


def test_a_collapsed_gallery_is_noticed():
    torch.manual_seed(0)
    point = torch.nn.functional.normalize(torch.randn(1, 16))
    near = torch.nn.functional.normalize(point + 0.001 * torch.randn(50, 16))
    y = torch.arange(50) % 5
    assert EmbeddingGallery(near, y).spread < COLLAPSED
    assert EmbeddingGallery(torch.nn.functional.normalize(torch.randn(50, 16)), y).spread > 1
    assert EmbeddingGallery(100 * near, y).spread == pytest.approx(EmbeddingGallery(near, y).spread)
    assert EmbeddingGallery(torch.tensor([[1.0, 0], [0, 1.0]]), y[:2]).spread == pytest.approx(
        2**0.5
    )
