"""Training of inversion networks: what must be rebuilt is, and an interrupt changes nothing."""

import math

import pytest
import torch

from robustbench_cli.core.errors import RunError, UserError
from robustbench_cli.core.registry import Spec
from robustbench_cli.data import DATASETS, Split
from robustbench_cli.inversion.net import InversionShape, PublishedAnswers
from robustbench_cli.inversion.surrogate import ImageInverter, SurrogateInverter
from robustbench_cli.training import inverter
from robustbench_cli.training.inverter import (
    AttackerData,
    InverterTraining,
    fit_inverter,
    mean_squared_error,
    rebuilt_images,
)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return DATASETS.build(Spec("digits")).load("train", tmp_path_factory.mktemp("data"))


def settings(**changes):
    usual = {"epochs": 40, "patience": 10, "batch_size": 64, "lr": 2e-3, "seed": 0}
    return InverterTraining(**{**usual, **changes})


def data(split: Split, maps, **more) -> AttackerData:
    confidences = torch.nn.functional.one_hot(split.y, 10).float()
    return AttackerData(examples=split, known=PublishedAnswers(confidences, maps), **more)


def state_file(folder):
    folder.mkdir(exist_ok=True)
    return folder / "state.safetensors"


def fresh(fusion="flatten", kind=ImageInverter, channels=1):
    torch.manual_seed(3)
    return kind(
        InversionShape(classes=10, image=(1, 8, 8), map_channels=channels, fusion=fusion, width=64)
    )


def trained(net, parts, folder, training=None, label="net", **more):
    one, two = parts
    return fit_inverter(
        net, one, two, training or settings(), label, state_file(folder), lambda _: None, **more
    )


@pytest.fixture
def halves(digits):
    one, two = digits.only(slice(300)), digits.only(slice(300, 360))
    return [data(each, each.images(slice(None)) * -3.0) for each in (one, two)]


@pytest.mark.parametrize("fusion", ["flatten", "unet", "both"])
def test_a_map_that_holds_the_image_gives_it_away(halves, fusion, tmp_path):
    # The explanation of a linear model whose weights are all alike: the image but for a factor.
    net = fresh(fusion)
    state = trained(net, halves, tmp_path)
    images = halves[1].examples.images(slice(None))
    spread = float((images - images.mean(0)).square().mean())
    assert state.best < 0.15 * spread
    assert mean_squared_error(net, halves[1], 32) == pytest.approx(state.best, abs=1e-7)


def test_maps_of_other_images_help_nobody(halves, tmp_path):
    nothing = [AttackerData(examples=h.examples, known=h.known._replace(maps=None)) for h in halves]
    plain = trained(fresh(channels=0), nothing, tmp_path / "a")
    foreign = [
        AttackerData(examples=h.examples, known=h.known, foreign_maps=not at)
        for at, h in enumerate(halves)
    ]
    rolled = foreign[1].known._replace(maps=foreign[1].known.maps.roll(1, 0))
    foreign[1] = AttackerData(examples=foreign[1].examples, known=rolled)
    shuffled = trained(fresh(), foreign, tmp_path / "b")
    assert 0.9 * plain.best < shuffled.best < 1.6 * plain.best


def test_an_interrupted_training_ends_like_one_that_was_not(halves, tmp_path, monkeypatch):
    monkeypatch.setattr(inverter, "_SAVED_EVERY", -1.0)
    whole = fresh("both")
    expected = trained(whole, halves, tmp_path / "whole", settings(epochs=6))

    def stop(epoch):
        if epoch == 3:
            raise KeyboardInterrupt

    one, two = halves
    with pytest.raises(KeyboardInterrupt):
        fit_inverter(fresh("both"), one, two, settings(epochs=6), "net", state_file(tmp_path), stop)
    again = fresh("both")
    with torch.no_grad():
        for weight in again.parameters():
            weight.zero_()
    found = trained(again, halves, tmp_path, settings(epochs=6))
    assert (found.epoch, found.best, found.best_epoch) == (
        expected.epoch,
        expected.best,
        expected.best_epoch,
    )
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_a_damaged_state_is_named(halves, tmp_path):
    state_file(tmp_path).write_bytes(b"no tensors")
    with pytest.raises(UserError, match=r"state\.safetensors"):
        trained(fresh(), halves, tmp_path)


def test_training_stops_early_and_keeps_the_best(halves, tmp_path):
    state = trained(fresh(), halves, tmp_path, settings(epochs=200, patience=2, lr=0.02))
    assert state.epoch < 200
    assert state.epoch == state.best_epoch + 2


def test_a_diverging_training_is_an_error(halves, tmp_path):
    broken = [
        AttackerData(examples=h.examples, known=h.known._replace(maps=h.known.maps * math.nan))
        for h in halves
    ]
    with pytest.raises(RunError, match="the loss is nan"):
        trained(fresh(), broken, tmp_path)


def test_a_surrogates_maps_are_needed_in_training_only(halves, tmp_path):
    net = fresh("both", SurrogateInverter)
    trained(net, halves, tmp_path, settings(epochs=3))
    known = halves[1].known
    seen = rebuilt_images(net, known, 16)
    assert torch.equal(seen, rebuilt_images(net, known._replace(maps=None), 16))
    assert seen.min() >= 0
    assert seen.max() <= 1
    with pytest.raises(ValueError, match="surrogate"):
        net.loss(known._replace(maps=None), torch.rand(60, 1, 8, 8))
