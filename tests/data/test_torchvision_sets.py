"""torchvision's data sets: real ones where present, small fakes, and damaged ones."""

import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Spec
from robustbench_cli.data import DATASETS, Split

NAMES = ["mnist", "fashion-mnist", "cifar10", "cifar100", "svhn"]


def load(name: str, split: Any, root: Path) -> Split:
    return DATASETS.build(Spec(name)).load(split, root)


def idx(values: np.ndarray) -> bytes:
    """Return an array in the format of MNIST's files."""
    header = struct.pack(">I", 0x800 + values.ndim) + struct.pack(f">{values.ndim}I", *values.shape)
    return header + values.astype(np.uint8).tobytes()


def write_mnist(root: Path, folder: str = "MNIST", labels: int = 12, highest: int = 9) -> Path:
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (12, 28, 28))
    for start, shift in (("train", 0), ("t10k", 1)):
        (raw / f"{start}-images-idx3-ubyte").write_bytes(idx((pixels + shift) % 256))
        (raw / f"{start}-labels-idx1-ubyte").write_bytes(idx(np.arange(labels) % (highest + 1)))
    return raw


def test_real_mnist(real: Path) -> None:
    if not (real / "MNIST" / "raw").is_dir():
        pytest.skip(f"no MNIST in {real}")
    test = load("mnist", "test", real)
    assert test.x.shape == (10_000, 1, 28, 28)
    assert test.x.dtype == torch.uint8
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert torch.bincount(test.y).tolist() == counts
    assert test.y[:5].tolist() == [7, 2, 1, 0, 4]
    train = load("mnist", "train", real)
    assert train.x.shape == (60_000, 1, 28, 28)
    # The published mean and std of the training images.
    assert train.images(slice(None)).mean().item() == pytest.approx(0.1307, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")]
)
@pytest.mark.usefixtures("offline")
def test_files_on_disk_need_no_network(
    tmp_path: Path, name: str, folder: str, capfd: pytest.CaptureFixture[str]
) -> None:
    write_mnist(tmp_path, folder)
    train, test = load(name, "train", tmp_path), load(name, "test", tmp_path)
    assert train.x.shape == (12, 1, 28, 28)
    assert torch.equal(train.x + 1, test.x)
    assert train.y.tolist() == [*range(10), 0, 1]
    assert len(train.classes) == 10
    assert capfd.readouterr() == ("", "")


def test_arrays_become_images_first_channels_second() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    opened = SimpleNamespace(data=pixels, targets=[3, 1, 4, 1, 5], classes=list("abcdef"))
    x, y, classes = DATASETS.build(Spec("cifar-10")).arrays(opened)
    assert x[2, 1, 7, 9] == pixels[2, 7, 9, 1]
    assert (x.shape, y.tolist(), classes) == ((5, 3, 32, 32), [3, 1, 4, 1, 5], tuple("abcdef"))

    opened = SimpleNamespace(data=pixels.transpose(0, 3, 1, 2), labels=np.array([3, 1, 4, 1, 5]))
    x, y, classes = DATASETS.build(Spec("svhn")).arrays(opened)
    assert x[2, 1, 7, 9] == pixels[2, 7, 9, 1]
    assert (x.shape, y.tolist(), len(classes)) == ((5, 3, 32, 32), [3, 1, 4, 1, 5], 10)


@pytest.mark.parametrize(
    ("name", "title", "expected"),
    [
        ("cifar10", "CIFAR10", {"train": False}),
        ("cifar100", "CIFAR100", {"train": False}),
        ("svhn", "SVHN", {"split": "test"}),
    ],
)
def test_torchvision_is_asked_for_the_split_and_kept_quiet(
    name: str,
    title: str,
    expected: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    asked: list[dict[str, object]] = []

    def fake(**arguments: object) -> SimpleNamespace:
        asked.append(arguments)
        print("Downloading https://example.org")  # noqa: T201
        shape = (4, 3, 32, 32) if name == "svhn" else (4, 32, 32, 3)
        return SimpleNamespace(
            data=np.zeros(shape, np.uint8),
            targets=[0, 1, 2, 3],
            labels=np.arange(4),
            classes=list("abcd"),
        )

    monkeypatch.setattr(f"torchvision.datasets.{title}", fake)
    split = load(name, "test", tmp_path)
    assert split.x.shape == (4, 3, 32, 32)
    assert split.x.is_contiguous()
    assert split.y.dtype == torch.int64
    assert asked == [{"root": tmp_path, "download": True, **expected}]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.usefixtures("offline")
def test_absent_and_no_network(name: str, split: str, tmp_path: Path) -> None:
    # Twice: a failed download must not pass for damaged data the second time.
    for _ in range(2):
        with pytest.raises(UserError) as caught:
            load(name, split, tmp_path)
        text = str(caught.value)
        assert text.startswith(
            f"dataset {name!r} is not in {tmp_path} and could not be downloaded (no network?): "
            "put it there as torchvision lays it out, or pass --data-dir"
        )
        assert "\n" not in text
        assert len(text) < 400
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("offline")
def test_a_folder_that_cannot_be_written(name: str, tmp_path: Path) -> None:
    # A file in its way, because tests may run as root, whom permissions do not stop.
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="could not be downloaded"):
        load(name, "train", tmp_path / "file" / "data")


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("cifar10", "cifar-10-batches-py/data_batch_1"),
        ("cifar100", "cifar-100-python/train"),
        ("svhn", "train_32x32.mat"),
        ("mnist", "MNIST/raw/train-images-idx3-ubyte"),
        ("fashion-mnist", "FashionMNIST/raw/train-labels-idx1-ubyte"),
    ],
)
@pytest.mark.usefixtures("offline")
def test_a_damaged_file(name: str, place: str, tmp_path: Path) -> None:
    if name.endswith("mnist"):
        write_mnist(tmp_path, place.split("/")[0])
    broken = tmp_path / place
    broken.parent.mkdir(parents=True, exist_ok=True)
    broken.write_bytes(b"not what it should be")
    with pytest.raises(UserError, match="is damaged or incomplete: delete that") as caught:
        load(name, "train", tmp_path)
    named = broken if name == "svhn" else broken.parent
    assert f"dataset {name!r} in {named} is" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [{"labels": 11}, {"highest": 11}, {"labels": 0}])
def test_images_and_labels_must_agree(tmp_path: Path, wrong: dict[str, int]) -> None:
    write_mnist(tmp_path, **wrong)
    with pytest.raises(UserError, match="is damaged") as caught:
        load("mnist", "test", tmp_path)
    assert "\n" not in str(caught.value)
