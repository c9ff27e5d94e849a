"""The inversion network: sizes, fusions, and maps that belong to other images."""

import pytest
import torch

from robustbench_cli.inversion.net import (
    FUSIONS,
    InversionNet,
    InversionShape,
    PublishedAnswers,
    shuffled,
)

IMAGES = [(1, 8, 8), (3, 32, 32), (1, 28, 28), (3, 12, 20), (1, 5, 7)]


def published(n, shape, channels=1):
    _, height, width = shape
    maps = torch.rand(n, channels, height, width) if channels else None
    return PublishedAnswers(torch.rand(n, 4).softmax(1), maps)


def net_for(image, fusion, channels):
    shape = InversionShape(classes=4, image=image, map_channels=channels, fusion=fusion, width=64)
    return InversionNet(shape)


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("channels", [0, 1, 3])
def test_images_have_the_size_that_was_asked_for(image, fusion, channels):
    net = net_for(image, fusion, channels)
    assert net(published(2, image, channels)).shape == (2, *image)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_weight_learns(fusion):
    net = net_for((1, 8, 8), fusion, 1)
    net(published(5, (1, 8, 8))).square().sum().backward()
    for name, weight in net.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0, name


def test_a_map_is_read_by_each_fusion_and_by_none_where_there_is_none():
    known = published(3, (1, 8, 8))
    other = known._replace(maps=known.maps.flip(0))
    for fusion in FUSIONS:
        net = net_for((1, 8, 8), fusion, 1)
        assert not torch.allclose(net(known)[0], net(other)[0])
    plain = net_for((1, 8, 8), "both", 0)
    assert {n.split(".")[0] for n, _ in plain.named_parameters()} == {"dense", "steps", "last"}


def test_an_image_does_not_depend_on_the_batch():
    net, known = net_for((1, 8, 8), "both", 1), published(6, (1, 8, 8))
    whole = net(known)
    for row in range(6):
        alone = net(known.rows(slice(row, row + 1)))
        assert torch.allclose(alone[0], whole[row], atol=1e-6)


@pytest.mark.parametrize("n", [2, 3, 50])
def test_shuffled_maps_are_all_there_and_none_at_its_place(n):
    maps = torch.arange(n).float().view(n, 1, 1, 1)
    known = PublishedAnswers(torch.rand(n, 4), maps)
    found = shuffled(known, "train", 0)
    assert torch.equal(found.confidences, known.confidences)
    assert sorted(found.maps.flatten().tolist()) == list(range(n))
    assert not (found.maps == maps).any()
    assert torch.equal(found.maps, shuffled(known, "train", 0).maps)


def test_without_maps_there_is_nothing_to_shuffle():
    known = PublishedAnswers(torch.rand(5, 4), None)
    assert shuffled(known, "train", 0) is known
