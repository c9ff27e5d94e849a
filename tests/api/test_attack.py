"""``attack``: the images that ``evaluate`` judges, in memory."""

import numpy as np
import pytest
import torch

from robustbench_cli import Threat, attack, evaluate
from robustbench_cli.attacks.pgd import PGD


@pytest.mark.parametrize("threat", [Threat("Linf", 0.12), Threat("L2", 0.8), Threat("L1", 3)])
def test_what_is_broken_is_wrong_inside_the_ball(threat, net, images, labels):
    found = attack("pgd5", net, images, labels, threat=threat)
    assert (found.x.dtype, found.x.shape) == (torch.float32, images.shape)
    assert bool(threat.inside(found.x, images).all())
    with torch.no_grad():
        wrong = net.eval()(found.x).argmax(1) != labels
    assert torch.equal(wrong, found.broken)
    assert int(wrong.sum()) > 0
    assert torch.allclose(found.norm, threat.distance(found.x, images), atol=1e-6)
    result = evaluate(net, images, labels, attacks="pgd5", threat=threat)
    right = result.clean_correct
    assert np.array_equal(found.broken.numpy()[right], result.broken["pgd5"][right])
    assert np.array_equal(found.step.numpy()[right], result.verdicts["pgd5"]["step"][right])


def test_a_nearest_image_counts_within_the_radius(net, images, labels):
    threat = Threat("L2", 0.6)
    found = attack("fmn:steps=20", net, images, labels, threat=threat)
    result = evaluate(net, images, labels, attacks="fmn:steps=20", threat=threat)
    right = result.clean_correct
    assert np.array_equal(found.broken.numpy()[right], result.broken["fmn:steps=20"][right])
    assert bool((found.norm[found.broken] <= 0.6 + 1e-5).all())
    assert float(found.norm.max()) > 0.6  # others lie farther away
    robust = (right & ~result.broken["fmn:steps=20"]).mean()
    assert robust == pytest.approx(result.robust_accuracy["fmn:steps=20"])


def test_the_images_are_those_of_the_command(net, images, labels):
    """They do not depend on the form, the batch size, or a mask's being asked for by name."""
    threat = Threat("Linf", 0.12, "box:share=0.5")
    found = attack("pgd5", net, images, labels, threat=threat)
    array = (images * 255).round().to(torch.uint8).numpy()
    again = attack(PGD(steps=5), net, array, labels.tolist(), threat=threat, batch_size=5)
    assert torch.equal(found.x, again.x)
    other = attack("pgd5", net, images, labels, threat=threat, seed=1)
    assert not torch.equal(found.x, other.x)
    same = found.x == images
    assert bool(same.flatten(1).any(1).all())  # half of each image is as it was


def test_the_callers_images_stay_as_they_are(net, images, labels):
    uneven = (images * 0.9).requires_grad_()
    before = uneven.detach().clone()
    attack("pgd5", net, uneven, labels, threat=Threat("Linf", 0.12))
    assert torch.equal(uneven, before)
    assert uneven.grad is None
