"""What is measured of rebuilt images, against values that are known."""

import math

import pytest
import torch
from torch import nn

from robustbench_cli.core.errors import UserError
from robustbench_cli.data import Split
from robustbench_cli.explanations import ExplainedImages, Explanation
from robustbench_cli.inversion.measures import Judges, inversion_measures
from robustbench_cli.inversion.published import Publisher, map_scale, scaled


class Brightest(nn.Module):
    """The quadrant of an image that is brightest."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 4, bias=False)
        self.head.weight.data = torch.eye(4)

    def forward(self, x):
        return self.head(nn.functional.adaptive_avg_pool2d(x, 2).mean(1).flatten(1))


@pytest.fixture
def private():
    x = torch.rand(12, 1, 8, 8) * 0.2 + 0.1
    for i in range(12):
        x[i, :, 4 * (i % 4 // 2) :, 4 * (i % 2) :][:, :4, :4] += 0.5
    return x, torch.arange(12) % 4


def measured(rebuilt, private, labels):
    judges = Judges(Brightest(), Brightest(), torch.device("cpu"))
    found = [*inversion_measures("row", rebuilt, private, labels, judges)]
    assert {m.of for m in found} == {"row"}
    return {m.name: m.value for m in found}


def test_an_exact_copy(private):
    x, y = private
    found = measured(x, x, y)
    assert found["MSE"] == 0
    assert found["PSNR"] == 100
    assert found["SSIM"] == pytest.approx(1)
    assert found["embedding"] == pytest.approx(1)
    assert found["victim recognises"] == found["independent recognises"] == 1


def test_images_that_are_a_tenth_too_bright(private):
    x, y = private
    found = measured(x + 0.1, x, y)
    assert found["MSE"] == pytest.approx(0.01, rel=1e-5)
    assert found["PSNR"] == pytest.approx(20, rel=1e-5)
    assert found["victim recognises"] == 1


def test_psnr_is_a_mean_over_images(private):
    x, y = private
    wrong = x.clone()
    wrong[:6] += 0.1
    wrong[6:] += 0.01
    assert measured(wrong, x, y)["PSNR"] == pytest.approx((20 + 40) / 2, rel=1e-4)


def test_images_of_other_classes_are_not_recognised(private):
    x, y = private
    found = measured(x.roll(1, 0), x, y)
    assert found["victim recognises"] == found["independent recognises"] == 0
    assert found["embedding"] < 0.9
    assert found["SSIM"] < 0.9


def test_images_without_room_for_a_window_have_no_structure():
    x = torch.rand(3, 1, 2, 2)
    found = measured(x, x, torch.zeros(3).long())
    assert found["SSIM"] is None


class Doubled(Explanation):
    """A map that is the image, twice."""

    def attributions(self, asked: ExplainedImages):
        return 2 * asked.x + asked.target.view(-1, 1, 1, 1)


def test_what_is_published(private):
    x, y = private
    data = Split(x, y, ("a", "b", "c", "d"))
    plain = Publisher(model=Brightest()).answers(data)
    assert plain.maps is None
    assert torch.allclose(plain.confidences, Brightest()(x).softmax(1))
    explained = Publisher(model=Brightest(), explanation=Doubled()).answers(data)
    assert torch.allclose(explained.maps, 2 * x + y.view(-1, 1, 1, 1))
    asked = Publisher(model=Brightest(), explanation=Doubled()).answers(
        data, torch.zeros(12).long()
    )
    assert torch.allclose(asked.maps, 2 * x)
    scale = map_scale(asked.maps)
    assert scale == pytest.approx(math.sqrt(float((2 * x).square().mean())), rel=1e-6)
    assert float(scaled(asked, scale).maps.square().mean()) == pytest.approx(1, rel=1e-5)


class Broken(Explanation):
    """A map that is no number for bright images."""

    def attributions(self, asked: ExplainedImages):
        return torch.where(asked.x > 0.79, math.nan, asked.x)


def test_a_map_that_is_no_number_is_named(private):
    data = Split(*private, ("a", "b", "c", "d"))
    with pytest.raises(UserError, match=r"'Broken' is NaN or infinite for \d+ images"):
        Publisher(model=Brightest(), explanation=Broken()).answers(data)
