"""What every generator promises, and what each one's images have of their class."""

from pathlib import Path

import pytest
import torch

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.data import DATASETS, Split
from robustbench_cli.generators import GENERATORS
from robustbench_cli.generators._sampling import BATCH_SIZE, learned, sampled, unseen

CLASSES = ("a", "b", "c")


def built(text):
    return GENERATORS.build(Spec.parse(text))


@pytest.fixture(scope="module")
def digits():
    found = DATASETS.build(Spec("digits"))
    return {split: found.load(split, Path()) for split in ("train", "test")}


@pytest.fixture(params=GENERATORS.names())
def generator(request):
    return built(request.param)


def drawn(generator, known, label, count):
    """Images of one class before they become pixels, float64 (count, F)."""
    y = torch.full((count,), label)
    return generator.draw(known, y, Noise(0, torch.arange(count))).double().flatten(1)


def test_an_image_depends_on_its_number_and_the_seed_alone(generator, digits):
    known = learned(generator, digits["train"].only(slice(150)))
    images, labels = sampled(generator, known, 2 * BATCH_SIZE + 17, seed=3)
    for n in (1, BATCH_SIZE, BATCH_SIZE + 5):
        fewer, theirs = sampled(generator, known, n, seed=3)
        assert torch.equal(fewer, images[:n])
        assert torch.equal(theirs, labels[:n])
    assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
    assert images.shape == (2 * BATCH_SIZE + 17, 1, 8, 8)
    other, _ = sampled(generator, known, 50, seed=4)
    assert not torch.equal(other, images[:50])
    assert len(images.flatten(1).unique(dim=0)) == len(images)


def test_classes_are_as_frequent_as_in_training_and_an_absent_one_never_comes(generator):
    y = torch.tensor([0] * 30 + [2] * 10)
    x = torch.randint(0, 256, (40, 1, 4, 3), dtype=torch.uint8)
    known = learned(generator, Split(x, y, CLASSES))
    assert all(isinstance(value, torch.Tensor) for value in known.values())
    assert known["counts"].tolist() == [30, 0, 10]
    _, labels = sampled(generator, known, 4000, seed=0)
    shares = labels.bincount(minlength=3) / 4000
    assert shares.tolist() == pytest.approx([0.75, 0, 0.25], abs=0.03)


def test_one_image_of_a_class_is_enough(generator):
    x = torch.randint(0, 256, (2, 1, 3, 3), dtype=torch.uint8)
    known = learned(generator, Split(x, torch.tensor([0, 1]), CLASSES[:2]))
    images, labels = sampled(generator, known, 20, seed=0)
    if "bandwidth" not in generator.__dataclass_fields__:
        assert torch.equal(images, x[labels])
    assert (images.float() - x[labels].float()).abs().max() < 130  # five deviations of the kernel


def test_images_have_the_mean_of_their_class(generator, digits):
    train = digits["train"]
    known = generator.fit(train)
    found = drawn(generator, known, 7, 4000).mean(0)
    wanted = train.images(train.y == 7).double().flatten(1).mean(0)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0.03)


def test_the_gaussian_has_the_covariance_of_its_class_in_the_directions_that_it_keeps(digits):
    train = digits["train"]
    x = train.images(train.y == 3).double().flatten(1)
    covariance = torch.cov(x.T)
    for count in (64, 5):
        known = built(f"gaussian:components={count}").fit(train)
        axes = known["axes"][3].flatten(1)
        values, directions = torch.linalg.eigh(covariance)
        kept = directions[:, -count:] * values[-count:].clamp(min=0).sqrt()
        torch.testing.assert_close(axes.T @ axes, kept @ kept.T, rtol=0, atol=1e-10)
    found = torch.cov(drawn(built("gaussian:components=64"), known, 3, 20_000).T)
    torch.testing.assert_close(found, kept @ kept.T, rtol=0, atol=0.02)


def test_directions_are_no_more_than_images_or_pixels_allow(digits):
    few = digits["train"].only(digits["train"].y == 5).only(slice(4))
    axes = built("gaussian:components=100").fit(few)["axes"]
    assert axes.shape == (10, 64, 1, 8, 8)
    lengths = axes[5].flatten(1).norm(dim=1)
    assert (lengths > 1e-8).sum() == 3


def test_a_kernel_sits_on_a_training_image_of_the_class(digits):
    train = digits["train"].only(slice(200))
    generator = built("kde:bandwidth=0.02")
    images, labels = sampled(generator, learned(generator, train), 300, seed=0)
    points = images.double().flatten(1) / 255
    gaps = torch.cdist(points, train.x.double().flatten(1) / 255)
    nearest = gaps.argmin(1)
    assert torch.equal(train.y[nearest], labels)
    assert len(nearest.unique()) > 100
    # Half of the noise on black pixels is cut off: at most 0.02 * sqrt(64) = 0.16.
    assert 0.08 < gaps.amin(1).mean() < 0.16
    kernel = drawn(generator, generator.fit(train.only(slice(1))), int(train.y[0]), 5000)
    rest = kernel - train.images(slice(1)).double().flatten(1)
    assert rest.std().item() == pytest.approx(0.02, rel=0.02)


def test_pixels_vary_as_in_the_class_but_not_together(digits):
    train = digits["train"]
    x = train.images(train.y == 0).double().flatten(1)
    generator = built("pixels")
    found = drawn(generator, generator.fit(train), 0, 20_000)
    torch.testing.assert_close(found.std(0), x.std(0, correction=0), rtol=0.05, atol=1e-6)
    varies = x.std(0) > 0.1
    off = ~torch.eye(int(varies.sum()), dtype=torch.bool)
    assert torch.corrcoef(x[:, varies].T)[off].abs().mean() > 0.2
    assert torch.corrcoef(found[:, varies].T)[off].abs().mean() < 0.02


def test_images_are_no_nearer_to_the_test_split_than_to_what_was_learned(generator, digits):
    """As many of both: the nearest of more images is nearer."""
    train, test = digits["train"].only(slice(500)), digits["test"]
    images, _ = sampled(generator, learned(generator, train), 300, seed=0)
    points = images.double().flatten(1)
    near = {
        name: torch.cdist(points, split.x.double().flatten(1)).amin(1).mean()
        for name, split in (("train", train), ("test", test))
    }
    assert near["test"] > near["train"]
    whole = torch.cdist(points, digits["train"].x[500:1000].double().flatten(1)).amin(1).mean()
    # Other training images, which the generator has not seen either, are as far as the test split.
    assert near["test"] == pytest.approx(whole.item(), rel=0.05)


def test_images_of_the_test_split_are_left_out(digits):
    train, test = digits["train"], digits["test"]
    assert len(unseen(train, test)) == len(train)
    mixed = torch.cat([train.x[:5], test.x[:3], train.x[5:9]])
    both = Split(mixed, torch.arange(12), train.classes)
    assert unseen(both, test).y.tolist() == [0, 1, 2, 3, 4, 8, 9, 10, 11]


def test_a_classifier_of_real_images_knows_the_gaussian_s(digits):
    """The nearest mean among the classes of the test split."""
    train = digits["train"]
    generator = built("gaussian")
    images, labels = sampled(generator, learned(generator, train), 500, seed=1)
    test = digits["test"].x.double().flatten(1)
    means = torch.stack([test[digits["test"].y == k].mean(0) for k in range(10)])
    answers = torch.cdist(images.double().flatten(1), means).argmin(1)
    assert (answers == labels).double().mean() > 0.85


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gausian", "unknown generator 'gausian'; did you mean 'gaussian'"),
        ("gaussian:components=0", "'components': Input should be greater than 0"),
        ("kde:bandwidth=0", "'bandwidth': Input should be greater than 0"),
        ("pixels:components=3", "no parameter 'components'"),
    ],
)
def test_mistakes_are_named(text, message):
    with pytest.raises(UserError, match=message):
        built(text)
