"""The trapdoor detector against numpy, and what it is fitted on."""

import numpy as np
import pytest
import torch

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.trapdoors import MASKS, PATTERNS, Trapdoors
from robustbench_cli.detectors import DETECTORS, ModelOutputs
from robustbench_cli.detectors.trapdoor import Trapped
from robustbench_cli.evaluation.detect import seen
from robustbench_cli.evaluation.tensors import Tensors

TRAPDOORS = Trapdoors.drawn(0, 4, 8, 8, clusters=2, size=3, mask=0.5)
KEPT = {f"Honeypot.{MASKS}": TRAPDOORS.masks, f"Honeypot.{PATTERNS}": TRAPDOORS.patterns}


def built(**params):
    return DETECTORS.build(Spec("trapdoor", params))


def data(count=90):
    return Tensors(torch.rand(count, 1, 8, 8), torch.arange(count) * 7 % 4)


def outputs(count=90, width=30):
    return ModelOutputs(torch.rand(count, width).double(), torch.randn(count, 4).double())


def test_every_image_carries_the_trapdoor_of_another_class():
    plain = data()
    trapped = built().training_data(plain, KEPT)
    assert (trapped.y != plain.y).all()
    counts = torch.bincount(plain.y * 4 + trapped.y, minlength=16).view(4, 4)
    assert counts.diagonal().sum() == 0
    assert (counts[~torch.eye(4, dtype=torch.bool)] >= 6).all()  # 90 / 12 of each pair
    expected = TRAPDOORS.put_on(plain.images(slice(None)), trapped.y)
    assert torch.equal(trapped.images(slice(None)), expected)
    rows = torch.tensor([80, 3, 41])
    assert torch.equal(trapped.images(rows), expected[rows])


def test_the_similarities_are_those_of_numpy():
    """The mean features per trapdoor, and the cosine to that of the prediction."""
    fitted, answers, y = built(), outputs(), torch.arange(90) % 4
    known = fitted.fit(answers, y)
    features = answers.features.numpy()
    means = np.stack([features[y.numpy() == k].mean(0) for k in range(4)])
    np.testing.assert_allclose(known["signatures"], means)
    others = outputs(20)
    found = fitted.suspicion(others, known).numpy()
    for i, answer in enumerate(others.logits.numpy()):
        a, b = others.features.numpy()[i], means[answer.argmax()]
        assert found[i] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_a_share_of_the_neurons_is_drawn_by_the_seed():
    answers, y = outputs(width=40), torch.arange(90) % 4
    whole, some, again, other = (
        built(**params).fit(answers, y)
        for params in ({}, {"neurons": 0.1}, {"neurons": 0.1}, {"neurons": 0.1, "seed": 1})
    )
    assert whole["compared"].sum() == 40
    assert some["compared"].sum() == 4
    assert torch.equal(some["compared"], again["compared"])
    assert not torch.equal(some["compared"], other["compared"])
    found = built(neurons=0.1).suspicion(answers, some).numpy()
    a = answers.features.numpy() * some["compared"].numpy()
    b = whole["signatures"].numpy()[answers.prediction]
    by_hand = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(found, by_hand)


def test_gradients_pass_to_the_features():
    fitted, answers = built(), outputs()
    known = fitted.fit(answers, torch.arange(90) % 4)
    features = answers.features.clone().requires_grad_()
    fitted.suspicion(ModelOutputs(features, answers.logits), known).sum().backward()
    assert (features.grad.abs().sum(1) > 0).all()


def test_the_fit_does_not_depend_on_the_batch(model):
    model.float().eval()
    trapped = Trapped(data(), TRAPDOORS)
    one, other = (built().fit(seen(model, trapped, size), trapped.y) for size in (7, 90))
    torch.testing.assert_close(one["signatures"], other["signatures"])


def test_a_run_without_trapdoors_is_refused():
    with pytest.raises(UserError, match="trained with trapdoors: advbench train honeypot"):
        built().training_data(data(), {"Ema.weight": torch.ones(1)})
