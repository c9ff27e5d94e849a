"""What maps are judged by: values worked out by hand, and maps whose score is known."""

import numpy as np
import pytest
import torch
from torch import nn

from robustbench_cli.commands.explanation_scores import mean_measure, sanity_measure
from robustbench_cli.commands.insertion_deletion import area_under, rank_curves
from robustbench_cli.commands.map_measures import box_overlap, energy_in_mask, pointing_game
from robustbench_cli.commands.weights_sanity import (
    layers_from_the_top,
    random_weights,
    rank_correlation,
)
from robustbench_cli.core.example_rng import Noise

MASK = torch.tensor([[[True, True], [False, False]]])


def maps(*values):
    return torch.tensor(values).double().view(1, 2, 2)


def test_energy_is_the_share_on_the_object():
    assert float(energy_in_mask(maps(1, 2, 0, 1), MASK)) == pytest.approx(0.75)
    even = torch.ones(1, 8, 8)
    some = torch.zeros(1, 8, 8, dtype=torch.bool)
    some[:, :3] = True
    assert float(energy_in_mask(even, some)) == pytest.approx(3 / 8)


def test_the_pointing_game_shares_equal_maxima():
    assert float(pointing_game(maps(1, 2, 0, 1), MASK)) == 1
    assert float(pointing_game(maps(1, 1, 0, 2), MASK)) == 0
    assert float(pointing_game(maps(2, 1, 0, 2), MASK)) == 0.5
    assert float(pointing_game(maps(2, 2, 0, 2), MASK)) == pytest.approx(2 / 3)


@pytest.mark.parametrize("measure", [energy_in_mask, pointing_game])
def test_an_empty_map_and_a_mask_that_tells_nothing_have_no_number(measure):
    assert measure(maps(0, 0, 0, 0), MASK).isnan().all()
    for whole in (True, False):
        assert measure(maps(1, 2, 3, 4), torch.full_like(MASK, whole)).isnan().all()


def test_a_map_s_box_holds_its_largest_part():
    one = np.zeros((8, 8))
    one[2:5, 3:7] = 0.5
    one[0, 0] = 1.0  # a single brighter pixel is the smaller part
    one[7, 7] = 0.1  # under a fifth of the maximum
    assert box_overlap(one, [(3, 2, 7, 5)]) == 1
    assert box_overlap(one, [(0, 0, 1, 1), (3, 2, 7, 6)]) == pytest.approx(12 / 16)
    assert box_overlap(one, [(5, 2, 9, 5)]) == pytest.approx(6 / 18)
    assert box_overlap(one, [(0, 6, 2, 8)]) == 0
    assert np.isnan(box_overlap(np.zeros((8, 8)), [(0, 0, 1, 1)]))


class Weighted(nn.Module):
    """The probability of class 1 is the weighted sum of four pixels, as the logits have it."""

    weight = torch.tensor([0.4, 0.3, 0.2, 0.1]).double()

    def forward(self, x):
        share = (x.double().flatten(1) @ self.weight).clamp(1e-9, 1 - 1e-9)
        return torch.stack([(1 - share).log(), share.log()], 1)


def curves(map_, steps=4, x=None, seed=0):
    x = torch.ones(1, 1, 2, 2) if x is None else x
    target = torch.ones(1, dtype=torch.long)
    return rank_curves(Weighted(), x, target, map_, steps, Noise(seed, torch.tensor([3])))


def test_deletion_takes_the_important_pixels_first():
    found = curves(maps(4, 3, 2, 1)).deletion
    expected = torch.tensor([[1.0, 0.6, 0.3, 0.1, 0.0]]).double()
    torch.testing.assert_close(found, expected, atol=1e-8, rtol=0)
    assert float(area_under(found)) == pytest.approx((0.5 + 0.6 + 0.3 + 0.1) / 4)
    worst = curves(maps(1, 2, 3, 4)).deletion
    assert float(area_under(worst)) == pytest.approx((0.5 + 0.9 + 0.7 + 0.4) / 4)


def test_insertion_begins_with_the_blurred_image_and_ends_with_the_image():
    x = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    found = curves(maps(4, 3, 2, 1), x=x).insertion[0]
    assert 0.05 < float(found[0]) < 0.39  # the bright pixel is spread over all
    assert float(found[-1]) == pytest.approx(0.4)
    assert float(found[1]) > float(found[0])


def test_parts_may_be_fewer_than_pixels_or_more():
    assert curves(maps(4, 3, 2, 1), steps=2).deletion.shape == (1, 3)
    ends = curves(maps(4, 3, 2, 1), steps=7).deletion[0]
    assert (ends.diff() <= 0).all()
    assert float(ends[-1]) == pytest.approx(0, abs=1e-8)


def test_equal_importances_go_in_an_order_that_follows_from_the_example():
    even = maps(1, 1, 1, 1)
    first = curves(even).deletion
    assert torch.equal(first, curves(even).deletion)
    others = {tuple(curves(even, seed=seed).deletion[0].tolist()) for seed in range(20)}
    assert len(others) > 5
    half = [curves(maps(1, 1, 2, 2), seed=seed).deletion[0, 2] for seed in range(5)]
    assert all(float(each) == pytest.approx(0.7) for each in half)


def test_rank_correlation_is_spearman_s():
    from scipy.stats import spearmanr

    draw = torch.Generator().manual_seed(0)
    one, two = (torch.rand(3, 4, 4, generator=draw).mul(5).round() for _ in range(2))
    expected = [
        spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(one, two, strict=True)
    ]
    np.testing.assert_allclose(rank_correlation(one, two), expected, rtol=1e-9)
    np.testing.assert_allclose(rank_correlation(one, one.exp()), 1)
    np.testing.assert_allclose(rank_correlation(one, -one), -1)
    nothing = one * 0
    nothing[1] = torch.nan
    assert np.isnan(rank_correlation(one, nothing)).all()


def test_weights_are_randomised_from_the_top_in_a_copy(digits_model):
    net, x, _ = digits_model
    before = {name: value.clone() for name, value in net.state_dict().items()}
    layers, seen = layers_from_the_top(net), []
    assert layers[0] == "head"
    assert layers[-1] == "body.conv1"
    for layer, other in random_weights(net, seed=5):
        seen.append(layer)
        changed = {
            name.rpartition(".")[0]
            for name, value in other.named_parameters()
            if not torch.equal(value, before[name])
        }
        assert changed == set(seen)
        weight, old = other.get_submodule(layer).weight, before[f"{layer}.weight"]
        assert old.numel() < 50 or abs(float(weight.std() / old.std()) - 1) < 0.3
        assert other(x).isfinite().all()
    assert seen == layers
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    (*_, (_, again)) = random_weights(net, seed=5)
    (*_, (_, differs)) = random_weights(net, seed=6)
    assert torch.equal(again.head.weight, other.head.weight)
    assert not torch.equal(differs.head.weight, other.head.weight)


def test_a_mean_says_what_it_leaves_out():
    found = mean_measure("a", "b", np.array([1.0, np.nan, 0.0, np.nan]), why="they are empty")
    assert (found.value, found.n) == (0.5, 2)
    assert found.note == "2 of 4 images are left out: they are empty"
    none = mean_measure("a", "b", np.array([np.nan]), why="it is empty")
    assert (none.value, none.n) == (None, 0)
    assert none.note


def test_a_map_that_random_weights_do_not_change_is_marked():
    assert "not sensitive" in sanity_measure("a", "b", np.array([0.9, 0.8])).note
    assert not sanity_measure("a", "b", np.array([0.1, 0.3])).note
    assert sanity_measure("a", "b", np.array([np.nan])).value is None
