"""Sparse-RS: how many pixels change, how many are exchanged, and that it learns from answers."""

import pytest
import torch
from torch import nn

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat


class Bright(nn.Module):
    """Wrong once the sum of a few single pixels is high; the others do not matter."""

    def forward(self, x):
        score = x[:, 0, [1, 4, 6, 3], [2, 5, 0, 7]].sum(1)
        return torch.stack([3.5 + 0 * score, score], 1)


def test_it_finds_the_pixels_that_matter_and_changes_no_others(run):
    x, y = torch.full((5, 1, 8, 8), 0.5), torch.zeros(5, dtype=torch.long)
    found = run(Bright(), x, y, "sparse-rs2000", Threat("L0", 4))
    assert found.broken.all()
    assert (found.norm == 4).all()
    assert (found.x[:, 0, [1, 4, 6, 3], [2, 5, 0, 7]] == 1).all()
    assert found.forwards.float().mean() < 2000
    # What learns from no answer does not: 4 of 64 pixels, each lighter, are one of ten million.
    assert not run(Bright(), x, y, "corners2000", Threat("L0", 4)).broken.any()


def test_three_pixels_are_too_few(run):
    x, y = torch.full((5, 1, 8, 8), 0.5), torch.zeros(5, dtype=torch.long)
    found = run(Bright(), x, y, "sparse-rs500", Threat("L0", 2))
    assert not found.broken.any()
    assert (found.norm <= 2).all()
    assert (found.forwards == 502).all()


@pytest.mark.parametrize(
    ("query", "share"),
    [(1, 0.15), (50, 0.15), (51, 0.075), (201, 0.06), (999, 0.05), (5000, 0.025), (8001, 0.015)],
)
def test_the_share_falls_as_in_the_authors_code(query, share):
    attack = ATTACKS.build(Spec("sparse-rs"))
    assert attack._exchanged(torch.tensor([query]), 1000).tolist() == [round(1000 * share)]
    short = ATTACKS.build(Spec("sparse-rs", {"queries": 1000}))
    at = query // 10
    scaled = attack._exchanged(torch.tensor([10 * at]), 1000)
    assert torch.equal(short._exchanged(torch.tensor([at]), 1000), scaled)
