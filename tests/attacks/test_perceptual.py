"""The perceptual attack: the explanation's images, judged like any others, with or without taps."""

import numpy as np
import pytest
import torch

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.cli import main
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.evaluation.batch_attack import attack_batch
from robustbench_cli.evaluation.journal import read_arrays
from robustbench_cli.explanations import EXPLANATIONS, ExplainedImages
from robustbench_cli.explanations._perceptual_ball import feature_distances, tap_names
from robustbench_cli.runs import records


def run(model, x, y, **params):
    attack, noise = ATTACKS.build(Spec("perceptual", params)), Noise(0, torch.arange(len(y)))
    return attack_batch(model, x, y, attack, Threat("L2", 1.0), noise)


@pytest.fixture(scope="module")
def right(digits_model):
    """A net and eight images that it gets right."""
    net, x, y = digits_model
    fit = net(x).argmax(1) == y
    return net, x[fit][:8], y[fit][:8]


def test_its_images_are_those_of_the_explanation_in_the_box(right):
    """But for those that the explanation's best image leaves in its class, or just outside it."""
    net, x, y = right
    found = run(net, x, y, gamma=3, relative=False, steps=60)
    params = {"gamma": 3, "iterations": 60, "box": True}
    asked = ExplainedImages(model=net, x=x, target=y, noise=Noise(0, torch.arange(len(y))))
    image, facts = EXPLANATIONS.build(Spec("perceptual-ball", params)).changed(asked)
    assert (facts["feature distance"] > 0).all()
    left = net(image).argmax(1) != y
    assert left.sum() >= 4
    assert found.broken[left].all()
    torch.testing.assert_close(found.x[left], image[left], rtol=0, atol=1e-4)


def test_most_images_fall_and_their_distances_are_told(right):
    net, x, y = right
    found = run(net, x, y, steps=60)
    assert found.broken.float().mean() > 0.9
    assert ((found.x >= 0) & (found.x <= 1)).all()
    moved = (found.x - x).flatten(1).norm(dim=1)
    torch.testing.assert_close(found.norm[found.broken], moved[found.broken], rtol=1e-3, atol=1e-5)
    assert (net(found.x).argmax(1) != y)[found.broken].all()


def test_it_reaches_a_target_past_the_wrapping_of_its_model(right):
    net, x, y = right
    found = run(net, x, y, target="next", steps=60, gamma=10)
    reached = net(found.x).argmax(1) == (y + 1) % 10
    assert torch.equal(reached, found.broken)
    assert reached.float().mean() > 0.5


def test_the_feature_distance_of_each_image_is_kept(right, tmp_path):
    """Through the whole engine, in examples.npz, and as the explanation tells it."""
    out = tmp_path / "results"
    small = ["--set", "train.limit=400", "--set", "train.probe=0", "--set", "model.width=4"]
    train = ["train", "standard", "--epochs", "2", "--name", "net", "--quiet", *small]
    assert main([*train, "--out", str(out)]) == 0
    ask = ["eval", "--attack", "perceptual:steps=15", "--norm", "L2", "--eps", "0.5", "--n", "12"]
    assert main([*ask, "--name", "e", "--no-checks", "--quiet", "--out", str(out)]) == 0
    arrays = read_arrays(out / "e" / "examples.npz")
    distance = arrays["perceptual:steps=15/feature_distance"]
    attacked = arrays["clean/prediction"] == arrays["label"]
    assert np.isfinite(distance[attacked]).all()
    assert (distance[attacked] > 0).all()
    assert np.isnan(distance[~attacked]).all()
    assert "clean/feature_distance" not in arrays
    outcome = records.read(out / "e").attacks["perceptual:steps=15"]
    assert outcome.minimal
    assert outcome.median_norm > 0


def test_the_reported_distance_is_that_of_the_explanation(right):
    net, x, y = right
    params = {"gamma": 30, "iterations": 10, "box": True}
    asked = ExplainedImages(model=net, x=x, target=y, noise=Noise(0, torch.arange(len(y))))
    image, facts = EXPLANATIONS.build(Spec("perceptual-ball", params)).changed(asked)
    found = feature_distances(net, x, image, tap_names(net, "relus"))
    torch.testing.assert_close(found, facts["feature distance"], rtol=1e-4, atol=1e-7)
    assert feature_distances(net, x, image, ()).tolist() == [0] * len(y)


def test_layers_are_named_in_one_line_errors(right):
    net, x, y = right
    with pytest.raises(UserError, match="no layer 'nowhere'"):
        run(net, x, y, taps="nowhere")
