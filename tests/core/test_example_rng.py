"""Random numbers belong to examples, not to positions in a batch."""

import torch

from robustbench_cli.core.example_rng import Noise, stream_generator, stream_key

X = torch.empty(50, 3, 8, 8)


def test_same_numbers_whatever_the_batch():
    whole = Noise(7, torch.arange(50)).fork("start").uniform(X)
    rows = torch.tensor([31, 2, 17])
    part = Noise(7, rows).fork("start").uniform(X[:3])
    assert torch.equal(part, whole[rows])
    assert torch.equal(Noise(7, torch.arange(50)).fork("start").only(rows).uniform(X[:3]), part)


def test_turns_are_independent_and_an_example_s_own():
    """Side by side, each example may be at another turn of the same stream."""
    base = Noise(7, torch.arange(50)).fork("query")
    turns = torch.arange(50) % 3
    mixed = base.at(turns).uniform(X)
    for turn in range(3):
        same = base.at(torch.full((50,), turn)).uniform(X)
        assert torch.equal(mixed[turns == turn], same[turns == turn])
        assert (same == base.uniform(X)).float().mean() < 0.01
        assert (same == base.at(torch.full((50,), turn + 1)).uniform(X)).float().mean() < 0.01
        # Nor is a turn of one example another's: ids and turns do not add up.
        assert (same[1:] == base.at(torch.full((50,), turn + 1)).uniform(X)[:-1]).sum() < 100
    rows = torch.tensor([31, 2, 17])
    assert torch.equal(base.at(turns).only(rows).uniform(X[:3]), mixed[rows])
    assert torch.equal(base.only(rows).at(turns[rows]).uniform(X[:3]), mixed[rows])
    normal = base.at(turns).normal(torch.empty(50, 4000))
    assert abs(normal.mean()) < 4 / 447
    assert abs(normal.var() - 1) < 4 * 1.414 / 447


def test_draws_ahead_are_those_of_the_turns_to_come():
    base = Noise(7, torch.arange(50)).fork("query")
    turns = torch.arange(50) * 5 % 7
    ahead = base.at(turns).uniform_ahead(X, 4)
    for later in range(4):
        assert torch.equal(ahead[:, later], base.at(turns + later).uniform(X))


def test_seed_purpose_and_example_each_matter():
    base = Noise(0, torch.arange(50))
    for other in (Noise(1, base.ids), base.fork("x"), Noise(0, base.ids + 1)):
        assert (other.uniform(X) == base.uniform(X)).float().mean() < 0.01
    forked = base.fork("a").fork("b")
    assert not torch.equal(forked.uniform(X), base.fork("b").fork("a").uniform(X))


def test_uniform_is_uniform_and_normal_is_normal():
    noise, like = Noise(3, torch.arange(400)), torch.empty(400, 1000)
    u, z = noise.uniform(like), noise.normal(like)
    assert u.min() >= 0
    assert u.max() < 1
    # Four standard errors of each statistic over 400,000 draws.
    assert abs(u.mean() - 0.5) < 4 * 0.2887 / 632
    assert abs(z.mean()) < 4 / 632
    assert abs(z.var() - 1) < 4 * 1.414 / 632
    assert abs(z.pow(4).mean() - 3) < 4 * 9.8 / 632
    counts = torch.histc(u, 64, 0, 1)
    assert ((counts - 6250) ** 2 / 6250).sum() < 110  # chi-square, 63 degrees: p < 0.001
    neighbours = torch.corrcoef(u[:30])
    assert (neighbours - torch.eye(30)).abs().max() < 4.5 / 31.6


def test_numbers_are_the_same_on_every_machine():
    """Golden values: a change would silently change every published verdict."""
    drawn = Noise(0, torch.tensor([0, 41])).fork("start").uniform(torch.empty(2, 2))
    assert stream_key(0, "a") == stream_key(0, "a") != stream_key(0, "b")
    again = Noise(0, torch.tensor([41])).fork("start").uniform(torch.empty(1, 2))
    assert torch.equal(again, drawn[1:])
    expected = torch.tensor(GOLDEN)
    torch.testing.assert_close(drawn, expected, rtol=0, atol=1e-7)


def test_generators_for_whole_runs_follow_their_key():
    a, b, c = (
        torch.randperm(20, generator=stream_generator(*k)) for k in ((0, "x"), (0, "x"), (1, "x"))
    )
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


GOLDEN = [[0.1131944, 0.9612546], [0.9441094, 0.8914534]]


def test_subsets_belong_to_examples_and_every_set_is_as_likely():
    whole = Noise(7, torch.arange(3000)).fork("pixels").subset(6, 2)
    assert whole.shape == (3000, 2)
    assert (whole[:, 0] != whole[:, 1]).all()
    rows = torch.tensor([31, 2, 17])
    assert torch.equal(Noise(7, rows).fork("pixels").subset(6, 2).sort().values,
                       whole[rows].sort().values)  # fmt: skip
    low, high = whole.sort().values.unbind(1)
    counts = torch.bincount(6 * low + high, minlength=36)
    counts = counts[counts > 0].double()
    assert len(counts) == 15
    expected = 3000 / 15
    # Chi-squared with 14 degrees of freedom is above 36.1 in one case of a thousand.
    assert float(((counts - expected).square() / expected).sum()) < 36.1
    everything = Noise(7, rows).subset(6, 6).sort().values
    assert torch.equal(everything, torch.arange(6).expand(3, 6))
