"""Square Attack: the schedule of its squares, and what it breaks with few queries."""

import pytest
import torch
from pyautoattack.square import SquareAttack

from robustbench_cli.attacks._windows import sides
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.batch_attack import attack_batch

SHAPE = (32, 32)


def sides_of(attack, device):
    return sides(attack.queries, attack.share, SHAPE, False, attack.rescale, device).tolist()


@pytest.mark.parametrize("text", ["square500", "square1000", "square5000", "square"])
def test_a_search_of_any_length_goes_through_the_whole_schedule(text, build, batch):
    """0.8 of the image at first, 0.8 / 512 of it for the last fifth of the queries."""
    attack = build(text)
    seen = sides_of(attack, batch[0].device)
    assert seen[0] == round((0.8 * 32 * 32) ** 0.5)
    assert set(seen[-attack.queries // 5 + 1 :]) == {round((0.8 / 2**9 * 32 * 32) ** 0.5)}
    assert sorted(set(seen), reverse=True) == list(dict.fromkeys(seen))  # they only shrink
    assert len(set(seen)) == 10


@pytest.mark.parametrize("version", ["standard", "plus"])
@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_the_member_of_autoattack_keeps_the_official_schedule(version, norm, build, batch):
    member = build(f"autoattack:version={version}").members(Threat(norm, 0.1))["square"]
    seen = sides_of(member, batch[0].device)
    halved = [i for i in range(1, 5000) if seen[i] != seen[i - 1]]
    assert halved == [11, 51, 201, 501, 1001, 2001, 4001]


def test_few_queries_break_more_with_the_schedule_scaled_to_them(digits_model, build):
    net, x, y = digits_model
    source = Noise(0, torch.arange(len(y)))
    broken = {
        text: int(attack_batch(net, x, y, build(text), Threat("Linf", 0.16), source).broken.sum())
        for text in ("square300", "square:queries=300,rescale=false")
    }
    assert broken["square300"] >= broken["square:queries=300,rescale=false"] + 6, broken


@pytest.mark.parametrize("rescale", [True, False])
def test_no_image_falls_to_the_official_code_alone(rescale, digits_model, build):
    """Random squares decide single images; over seeds neither side has images of its own."""
    net, x, y = digits_model
    right = net(x).argmax(1) == y
    x, y, threat = x[right], y[right], Threat("Linf", 0.16)
    attack, seeds = build(f"square:queries=200,rescale={str(rescale).lower()}"), range(4)
    theirs = [
        SquareAttack(
            net, n_queries=200, eps=threat.eps, seed=s, resc_schedule=rescale, device=x.device
        ).perturb(x.clone(), y.clone())
        for s in seeds
    ]
    official = torch.stack([net(z).argmax(1) != y for z in theirs]).sum(0)
    # All seeds' squares in one batch: examples are drawn for by their numbers.
    often, noise = len(seeds), Noise(0, torch.arange(len(seeds) * len(y)))
    found = attack_batch(net, x.repeat(often, 1, 1, 1), y.repeat(often), attack, threat, noise)
    ours = found.broken.view(often, -1).sum(0)
    assert 0 < official.sum() < official.numel() * len(seeds)
    assert not ((official == len(seeds)) & (ours == 0)).any()
    assert not ((ours == len(seeds)) & (official == 0)).any()
    assert ours.sum() >= official.sum() - len(y) // 3


@pytest.mark.parametrize("threat", [Threat("Linf", 0.16), Threat("L2", 0.5)], ids=str)
def test_squares_drawn_ahead_are_the_same_for_rows_at_different_queries(
    threat, digits_model, build
):
    """Few slots are refilled at every moment of the drawing, so rows use theirs up one by one."""
    net, x, y = digits_model
    x, y, attack = x[:12], y[:12], build("square:queries=40")
    noise = Noise(0, torch.arange(12))
    together, slots = (attack_batch(net, x, y, attack, threat, noise, slots=n) for n in (12, 3))
    assert 0 < together.broken.sum() < 12
    assert torch.equal(together.step, slots.step)
    torch.testing.assert_close(together.x, slots.x, rtol=0, atol=1e-6)
