"""Trapdoors: where they are, how strong, and what they depend on."""

import torch

from robustbench_cli.core.trapdoors import MASKS, PATTERNS, Trapdoors


def drawn(seed=0, classes=4, height=28, width=20, **changes):
    given = {"clusters": 7, "size": 3, "mask": 0.1, **changes}
    return Trapdoors.drawn(seed, classes, height, width, **given)


def test_a_trapdoor_is_a_union_of_squares_with_one_share():
    for clusters, most in ((1, 9), (7, 63)):
        found = drawn(clusters=clusters)
        assert found.masks.shape == found.patterns.shape == (4, 1, 28, 20)
        assert set(found.masks.unique().tolist()) == {0, torch.tensor(0.1).item()}
        covered = found.masks > 0
        assert (covered.flatten(1).sum(1) <= most).all()
        assert (covered.flatten(1).sum(1) >= 9).all()
        assert (found.patterns[~covered] == 0).all()
        assert ((found.patterns >= 0) & (found.patterns <= 1)).all()
    one = drawn(clusters=1).masks > 0
    rows, columns = one.any(3).sum(2), one.any(2).sum(2)
    assert (rows == 3).all()
    assert (columns == 3).all()


def test_every_place_comes_up_and_squares_stay_inside():
    covered = drawn(classes=400, height=6, width=5, clusters=1).masks[:, 0] > 0
    corners = {(int(k.any(1).float().argmax()), int(k.any(0).float().argmax())) for k in covered}
    assert corners == {(i, j) for i in range(4) for j in range(3)}
    assert (covered.flatten(1).sum(1) == 9).all()


def test_a_trapdoor_depends_on_seed_and_class_alone():
    few, many, other = drawn(classes=2), drawn(classes=9), drawn(seed=1)
    state = torch.get_rng_state()
    assert torch.equal(few.masks, many.masks[:2])
    assert torch.equal(few.patterns, many.patterns[:2])
    assert not torch.equal(few.masks, other.masks[:2])
    assert len({tuple(k.flatten().tolist()) for k in many.patterns}) == 9
    assert torch.equal(torch.get_rng_state(), state)


def test_it_is_mixed_into_the_pixels_that_it_covers():
    trapdoors, x = drawn(), torch.rand(6, 3, 28, 20).double()
    classes = torch.tensor([0, 1, 2, 3, 3, 0])
    found = trapdoors.put_on(x, classes)
    for i, k in enumerate(classes):
        covered = trapdoors.masks[k, 0] > 0
        mixed = 0.9 * x[i] + 0.1 * trapdoors.patterns[k]
        torch.testing.assert_close(found[i][:, covered], mixed[:, covered], rtol=0, atol=1e-8)
        assert torch.equal(found[i][:, ~covered], x[i][:, ~covered])


def test_they_are_found_among_what_was_kept():
    trapdoors = drawn()
    kept = {f"Honeypot.{MASKS}": trapdoors.masks, f"Honeypot.{PATTERNS}": trapdoors.patterns}
    found = Trapdoors.kept_in({**kept, "Other.weight": torch.ones(2)})
    assert torch.equal(found.masks, trapdoors.masks)
    assert torch.equal(found.patterns, trapdoors.patterns)
    assert Trapdoors.kept_in({"Other.weight": torch.ones(2)}) is None
