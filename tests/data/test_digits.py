"""scikit-learn's digits, and the properties of splits in general."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from robustbench_cli.core.registry import Spec
from robustbench_cli.data import DATASETS, Split

ROOT = Path(__file__).parents[2]
NOWHERE = Path("/nonexistent")


@pytest.fixture(scope="module")
def train() -> Split:
    return DATASETS.build(Spec("digits")).load("train", NOWHERE)


@pytest.fixture(scope="module")
def test() -> Split:
    return DATASETS.build(Spec("digits")).load("test", NOWHERE)


def test_sizes_and_types(train: Split, test: Split) -> None:
    assert (train.x.shape, test.x.shape) == ((1297, 1, 8, 8), (500, 1, 8, 8))
    for split in (train, test):
        assert (split.x.dtype, split.y.dtype) == (torch.uint8, torch.int64)
        assert split.classes == tuple("0123456789")
        assert len(split) == len(split.y)


def test_they_are_scikit_learns_scans_and_its_split(train: Split, test: Split) -> None:
    datasets, selection = (
        pytest.importorskip(f"sklearn.{module}") for module in ("datasets", "model_selection")
    )
    values, labels = datasets.load_digits(return_X_y=True)
    rows = selection.train_test_split(
        range(len(labels)), test_size=500, random_state=0, stratify=labels
    )
    for split, own in zip((train, test), rows, strict=True):
        scans = torch.from_numpy(values[own]).view(-1, 1, 8, 8)
        assert ((split.x.double() * 16 / 255).round() == scans).all()
        assert (split.y == torch.from_numpy(labels[own])).all()
    assert train.fingerprint().startswith("e7fd6a3787bf")


def test_nothing_of_scikit_learn_is_imported() -> None:
    code = (
        "import sys; from pathlib import Path; from robustbench_cli.data import DATASETS;"
        "from robustbench_cli.core.registry import Spec;"
        "DATASETS.build(Spec('digits')).load('test', Path());"
        "sys.exit(str({'sklearn', 'scipy', 'pandas'} & set(sys.modules) or ''))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.stderr.strip() == ""


def test_every_grey_is_used(train: Split) -> None:
    levels = {round(v * 255 / 16) for v in range(17)}
    assert set(train.x.unique().tolist()) == levels
    assert train.images(slice(None)).max() == 1


def test_classes_are_balanced(train: Split, test: Split) -> None:
    counts = torch.stack([torch.bincount(split.y) for split in (train, test)]).double()
    shares = counts / counts.sum(1, keepdim=True)
    torch.testing.assert_close(shares[0], shares[1], atol=2e-3, rtol=0)


def test_splits_are_made_of_the_whole_set_once(train: Split, test: Split) -> None:
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    whole = sorted((*v.astype(int), y) for v, y in zip(values, labels, strict=True))
    found = []
    for split in (train, test):
        pixels = (split.x.flatten(1).double() * 16 / 255).round().long()
        found += [(*p, y) for p, y in zip(pixels.tolist(), split.y.tolist(), strict=True)]
    assert sorted(found) == whole


def test_loading_again_gives_the_same(test: Split) -> None:
    again = DATASETS.build(Spec("digits")).load("test", NOWHERE)
    assert again.fingerprint() == test.fingerprint()
    # Pinned: a change of the split would make old records incomparable without a word.
    assert test.fingerprint()[:16] == "4ca01dd72cd52a50"


def test_the_fingerprint_sees_everything(test: Split) -> None:
    pixel = test.x.clone()
    pixel[17, 0, 3, 3] ^= 1
    label = test.y.clone()
    label[17] = (label[17] + 1) % 10
    variants = [
        test,
        Split(pixel, test.y, test.classes),
        Split(test.x, label, test.classes),
        Split(test.x, test.y, (*test.classes[:-1], "nine")),
        Split(test.x.view(500, 1, 4, 16), test.y, test.classes),
        test.only(slice(0, 499)),
        test.only(torch.arange(500).flip(0)),
    ]
    assert len({split.fingerprint() for split in variants}) == len(variants)


def test_the_fingerprint_is_of_values_not_of_memory(test: Split) -> None:
    strided = test.x.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2)
    assert not strided.is_contiguous()
    assert Split(strided, test.y, test.classes).fingerprint() == test.fingerprint()
