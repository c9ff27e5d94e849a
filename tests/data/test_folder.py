"""Data sets in folders of images."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.example_rng import stream_generator
from robustbench_cli.core.registry import Spec
from robustbench_cli.data import DATASETS, Split

Picture = Callable[..., bytes]


def load(text: str, split: str = "train") -> Split:
    """Return the split with its fixed shuffle undone, in the order of the sorted files."""
    found = DATASETS.build(Spec.parse(text)).load(split, Path("/nonexistent"))
    order = torch.randperm(len(found), generator=stream_generator("folder", split))
    return found.only(order.argsort()).to("cpu")


def test_the_first_examples_are_of_all_classes(tmp_path: Path, picture: Picture) -> None:
    """`--n 30` of a set sorted by class would attack one class."""
    for split in ("train", "test"):
        for name in ("ant", "bee", "cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(30):
                (tmp_path / split / name / f"{i}.png").write_bytes(picture(i))
    dataset = DATASETS.build(Spec.parse(f"folder:{tmp_path}"))
    first = dataset.load("test", Path()).y[:30]
    assert first.bincount(minlength=4).min() >= 3
    assert torch.equal(dataset.load("test", Path()).y[:30], first)


@pytest.fixture
def top(tmp_path: Path, picture: Picture) -> Path:
    """Return a folder with three classes, two training images and one test image of each."""
    for split, count in (("train", 2), ("test", 1)):
        for label, name in enumerate(("zebra", "ant", "cat")):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                (folder / f"{i}.png").write_bytes(picture(100 * label + 10 * count + i))
    return tmp_path


def pixels(path: Path, mode: str = "RGB") -> torch.Tensor:
    array = np.array(Image.open(path).convert(mode))
    return torch.from_numpy(array.reshape(*array.shape[:2], -1)).permute(2, 0, 1)


def test_classes_are_sorted_folders(top: Path) -> None:
    train, test = load(f"folder:{top}"), load(f"folder:{top}", "test")
    assert train.classes == test.classes == ("ant", "cat", "zebra")
    assert (train.y.tolist(), test.y.tolist()) == ([0, 0, 1, 1, 2, 2], [0, 1, 2])
    assert (train.x.shape, train.x.dtype) == ((6, 3, 8, 8), torch.uint8)
    assert torch.equal(train.x[5], pixels(top / "train/zebra/1.png"))
    assert torch.equal(test.x[0], pixels(top / "test/ant/0.png"))


def test_other_files_are_passed_over(top: Path) -> None:
    before = load(f"folder:{top}").fingerprint()
    (top / "train/ant/.DS_Store.png").write_bytes(b"x")
    (top / "train/ant/notes.txt").write_text("x")
    (top / "train/notes.txt").write_text("x")
    (top / "train/.hidden").mkdir()
    assert load(f"folder:{top}").fingerprint() == before


@pytest.mark.parametrize("kind", ["JPEG", "BMP", "WEBP", "PPM", "TIFF"])
def test_kinds_of_files(top: Path, picture: Picture, kind: str) -> None:
    file = top / f"train/ant/9.{kind}"
    file.write_bytes(picture(1, kind=kind))
    assert torch.equal(load(f"folder:{top}").x[2], pixels(file))


def test_grey_stays_grey_if_all_of_it_is(top: Path, picture: Picture) -> None:
    for file in top.rglob("*.png"):
        file.write_bytes(picture(len(str(file)), mode="L"))
    assert load(f"folder:{top}").x.shape == (6, 1, 8, 8)
    grey = top / "train/cat/0.png"
    assert torch.equal(load(f"folder:{top}").x[2], pixels(grey, "L"))
    # One test image in colour makes both splits colour: they must fit one model.
    (top / "test/cat/0.png").write_bytes(picture(0))
    assert load(f"folder:{top}").x.shape == (6, 3, 8, 8)
    assert torch.equal(load(f"folder:{top}").x[2], pixels(grey))


def test_images_are_scaled_when_asked(top: Path, picture: Picture) -> None:
    (top / "train/ant/0.png").write_bytes(picture(1, size=(40, 20)))
    assert load(f"folder:{top},size=8").x.shape == (6, 3, 8, 8)
    assert torch.equal(load(f"folder:{top},size=8").x[1], pixels(top / "train/ant/1.png"))
    assert load(f"folder:{top},size=5").x.shape == (6, 3, 5, 5)


def test_scaling_keeps_the_middle_and_the_proportions(top: Path) -> None:
    # Left black, middle white, right black; the middle square is white all over.
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 255
    Image.fromarray(wide).save(top / "train/ant/0.png")
    assert load(f"folder:{top},size=8").x[0].eq(255).all()


def test_large_images_are_decoded_alike(top: Path, picture: Picture) -> None:
    for i, file in enumerate(sorted(top.rglob("*.png"))):
        file.write_bytes(picture(i, size=(130, 140)))
    for i in range(70):  # more than one thread takes at a time
        (top / f"train/ant/{i:03}.png").write_bytes(picture(i, size=(130, 140)))
    train = load(f"folder:{top}")
    files = [f for name in train.classes for f in sorted((top / "train" / name).iterdir())]
    assert train.x.shape == (76, 3, 140, 130)
    assert all(torch.equal(x, pixels(f)) for x, f in zip(train.x, files, strict=True))


def remove(path: str) -> Callable[[Path, Picture], object]:
    return lambda top, _: shutil.rmtree(top / path)


def write(path: str, content: bytes) -> Callable[[Path, Picture], object]:
    return lambda top, _: (top / path).write_bytes(content)


def draw(path: str, **options: object) -> Callable[[Path, Picture], object]:
    return lambda top, picture: (top / path).write_bytes(picture(1, **options))


def cut(path: str) -> Callable[[Path, Picture], object]:
    return lambda top, _: (top / path).write_bytes((top / path).read_bytes()[:-60])


def empty(path: str) -> Callable[[Path, Picture], object]:
    def make(top: Path, _: Picture) -> None:
        shutil.rmtree(top / path)
        (top / path).mkdir()

    return make


def one_class(top: Path, _: Picture) -> None:
    for path in ("train/ant", "train/cat", "test/ant", "test/cat"):
        shutil.rmtree(top / path)


def sixteen_bits(top: Path, _: Picture) -> None:
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(top / "train/ant/0.png")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (remove("."), "no such folder"),
        (remove("test"), "no folder 'test' in it; expected .*/test/<class>/<image>"),
        (remove("train"), "no folder 'train' in it"),
        (empty("train"), "no class folders in .*/train"),
        (remove("test/cat"), "class 'cat' is in 'train' and not in 'test'"),
        (remove("train/zebra"), "class 'zebra' is in 'test' and not in 'train'"),
        (empty("train/cat"), "no images in .*/train/cat; expected .bmp, "),
        (one_class, "at least 2 classes are needed, got 1"),
        (write("train/cat/0.png", b""), "train/cat/0.png: not a readable image"),
        (write("train/cat/1.png", b"text"), "train/cat/1.png: not a readable image"),
        (cut("train/cat/1.png"), "train/cat/1.png: damaged image"),
        (draw("train/cat/1.png", size=(9, 8)), r"cat/1.png: size 9x8, .* 8x8; .*folder:.*,size=32"),
        (sixteen_bits, "train/ant/0.png: pixels of mode 'I;16'; expected 8 bits a channel"),
    ],
)
def test_mistakes_are_one_line(
    top: Path, picture: Picture, harm: Callable[[Path, Picture], object], message: str
) -> None:
    harm(top, picture)
    with pytest.raises(UserError, match=message) as caught:
        [load(f"folder:{top}", split) for split in ("train", "test")]
    assert "\n" not in str(caught.value)
    assert str(top) in str(caught.value)


def test_mistakes_in_the_parameters(top: Path) -> None:
    with pytest.raises(UserError, match="size"):
        load(f"folder:{top},size=0")
    with pytest.raises(UserError, match="path"):
        load("folder")


def test_training_images_alone_are_enough_for_a_pool(top: Path) -> None:
    whole = load(f"folder:{top}")
    shutil.rmtree(top / "test")
    assert load(f"folder:{top}").fingerprint() == whole.fingerprint()


def pool(path: Path) -> Split:
    return DATASETS.build(Spec.parse(f"folder:{path}")).pool(Path("/nonexistent"))


@pytest.mark.parametrize("beside", ["nothing", "test"])
def test_images_without_classes_are_extra_data_and_no_data_set(top: Path, beside: str) -> None:
    """Directly in ``train``; a ``test`` with classes beside them changes nothing."""
    files = sorted((top / "train").rglob("*.png"))
    content = {pixels(file).numpy().tobytes() for file in files}
    for i, file in enumerate(files):
        file.rename(top / "train" / f"{i}.png")
        (top / "train" / "notes.txt").touch()
    for name in ("ant", "cat", "zebra"):
        (top / "train" / name).rmdir()
    if beside == "nothing":
        shutil.rmtree(top / "test")
    found = pool(top)
    assert found.y.tolist() == [-100] * 6
    assert {image.numpy().tobytes() for image in found.x} == content
    message = "no class folders in .*/train .images without labels can be --extra-data, with"
    with pytest.raises(UserError, match=message) as caught:
        load(f"folder:{top}")
    assert "\n" not in str(caught.value)


def test_extra_data_may_be_of_one_class_that_the_test_split_has_not(top: Path) -> None:
    shutil.rmtree(top / "train" / "ant")
    shutil.rmtree(top / "train" / "cat")
    shutil.rmtree(top / "test" / "zebra")
    found = pool(top)
    assert (found.y.tolist(), found.classes) == ([0, 0], ("zebra",))
