"""Every attack on retrieval: feasible, keyed by example, and driving its measure the stated way."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.threat import Threat
from robustbench_cli.metric_learning._recall import EmbeddingGallery, embed_split, embedded
from robustbench_cli.metric_learning.retrieval import RETRIEVAL_ATTACKS, Queries
from robustbench_cli.metric_learning.retrieval._ranks import (
    candidate_margins,
    query_margins,
    ranked_at,
)

NAMES = RETRIEVAL_ATTACKS.names()
HIGHER = {"ca-": "CA-", "qa-": "QA-", "tma": "TMA", "es": "ES:D"}
"""Measures that an attack raises; the others it lowers."""


@pytest.fixture
def queries(digits, embedder):
    """Sixteen digits among a hundred, under an untrained net."""
    some = digits.only(slice(100))
    return Queries(
        model=embedder.eval(),
        gallery=embed_split(embedder, some),
        x=some.images(slice(16)),
        y=some.y[:16],
        own=torch.arange(16),
        threat=Threat("Linf", 0.15),
        noise=Noise(0, torch.arange(16), "test"),
    )


def only(queries, rows):
    return replace(
        queries,
        x=queries.x[rows],
        y=queries.y[rows],
        own=queries.own[rows],
        noise=queries.noise.only(rows),
    )


@pytest.fixture(params=NAMES)
def attack(request):
    return RETRIEVAL_ATTACKS.entry(request.param).cls(steps=6, step=0.25)


def test_all_that_were_published_are_there():
    assert {"untargeted", "ca+", "ca-", "qa+", "qa-", "tma", "es", "ltm", "gtm", "gtt"} <= {*NAMES}


def test_images_stay_in_the_ball_and_the_gain_grows(attack, queries):
    aims = attack.aims(queries)
    x_adv = attack.attacked(queries, aims)
    assert queries.threat.inside(x_adv, queries.x).all()
    gain = partial(attack.gain, aims=aims, gallery=queries.gallery)
    before, after = gain(queries.z), gain(embedded(queries.model, x_adv))
    assert before.shape == (16,)
    assert after.sum() > before.sum()


def test_without_a_radius_embeddings_stay(attack, queries):
    still = replace(queries, threat=Threat("Linf", 1e-12))
    z = embedded(queries.model, attack.attacked(still, attack.aims(still)))
    assert torch.allclose(z, queries.z, atol=1e-6)


def test_an_image_is_attacked_alike_in_any_batch(attack, queries):
    whole_aims = attack.aims(queries)
    whole = attack.attacked(queries, whole_aims)
    rows = torch.tensor([9, 3, 4])
    part = only(queries, rows)
    aims = attack.aims(part)
    assert torch.equal(aims, whole_aims[rows])
    # Rounding differs with the batch; a sign that it decides moves a pixel by a step or two.
    far = (attack.attacked(part, aims) - whole[rows]).abs() > 1e-6
    assert far.float().mean() < 0.05


def test_measures_move_the_stated_way(attack, queries):
    aims = attack.aims(queries)
    z = embedded(queries.model, attack.attacked(queries, aims))
    before = attack.scores(queries.z, aims, queries)
    after = attack.scores(z, aims, queries)
    assert list(before) == list(attack.scales)
    raised = HIGHER.get(RETRIEVAL_ATTACKS.name_of(attack))
    for name, scale in attack.scales.items():
        assert after[name].shape == (16,)
        change = float(after[name].double().mean() - before[name].double().mean())
        assert change > 0 if name == raised else change <= 0
        assert scale.better == ("lower" if name == raised else "higher")


def test_ranks_by_hand():
    gallery = EmbeddingGallery(torch.tensor([[0.0], [1.0], [2.0], [3.0], [10.0]]), torch.arange(5))
    own, chosen = torch.tensor([0]), torch.tensor([4])
    # The query stays at 0: 1, 2 and 3 come before the image at 10, out of three that count.
    margins = query_margins(torch.tensor([[0.0]]), chosen, gallery)
    assert margins.tolist() == [[10, 9, 8, 7, 0]]
    assert ranked_at(margins, own, chosen).tolist() == [1.0]
    margins = query_margins(torch.tensor([[6.8]]), chosen, gallery)  # 3.2 away, 3 is 3.8 away
    assert ranked_at(margins, own, chosen).tolist() == [0.0]
    # The candidate at 0 is asked for from 10: all others come before it.
    margins = candidate_margins(torch.tensor([[0.0]]), chosen, gallery)
    assert ranked_at(margins, own, chosen).tolist() == [1.0]
    margins = candidate_margins(torch.tensor([[2.5]]), chosen, gallery)
    assert ranked_at(margins, own, chosen).tolist() == pytest.approx([1 / 3])


def test_chosen_images_are_never_the_querys_own(queries):
    for name in ("ca+", "ca-", "qa+", "qa-", "gtt"):
        aims = RETRIEVAL_ATTACKS.entry(name).cls().aims(queries)
        assert (aims != queries.own).all()
