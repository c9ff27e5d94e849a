"""Parquet files in Hugging Face's layout, and names on its hub."""

import io
import json
import re
import shutil
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Spec
from robustbench_cli.data import DATASETS, Split

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

Picture = Callable[..., bytes]
HF_IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def load(text: str, split: Any = "train", root: Path = Path("/nonexistent")) -> Split:
    return DATASETS.build(Spec.parse(text)).load(split, root).to("cpu")


def pair(content: bytes | None, path: str | None = None) -> dict[str, object]:
    return {"bytes": content, "path": path}


def table(images: Sequence[bytes], labels: Sequence[int], **named: str) -> Any:
    """Return a table with the columns img and label, or as ``named`` renames them."""
    return pa.table(
        {
            named.get("image", "img"): pa.array([pair(b) for b in images], HF_IMAGE),
            named.get("label", "label"): pa.array(labels, pa.int64()),
        }
    )


@pytest.fixture
def top(tmp_path: Path, picture: Picture) -> Path:
    """Return a folder: five training images in two files, two test images, two classes."""
    pq.write_table(
        table([picture(0), picture(1), picture(2)], [0, 1, 0]),
        tmp_path / "train-00000-of-00002.parquet",
    )
    pq.write_table(
        table([picture(3), picture(4)], [1, 0]), tmp_path / "train-00001-of-00002.parquet"
    )
    pq.write_table(
        table([picture(5), picture(6)], [1, 0]), tmp_path / "test-00000-of-00001.parquet"
    )
    return tmp_path


def pixels(picture: Picture, seed: int) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(io.BytesIO(picture(seed))))).permute(2, 0, 1)


def test_real_cifar(real: Path) -> None:
    if not (real / "cifar10-jpeg").is_dir():
        pytest.skip(f"no cifar10-jpeg in {real}")
    test = load(f"hf:{real / 'cifar10-jpeg'}", "test")
    assert test.x.shape == (10_000, 3, 32, 32)
    assert torch.bincount(test.y).tolist() == [1000] * 10
    assert test.classes[:3] == ("airplane", "automobile", "bird")
    mean = test.images(slice(None)).mean((0, 2, 3))
    assert mean.tolist() == pytest.approx([0.4942, 0.4851, 0.4504], abs=2e-3)


def test_shards_in_their_order(top: Path, picture: Picture) -> None:
    train, test = load(f"hf:{top}"), load(f"hf:{top}", "test")
    assert (train.y.tolist(), test.y.tolist()) == ([0, 1, 0, 1, 0], [1, 0])
    assert train.classes == test.classes == ("0", "1")
    for row in range(5):
        assert torch.equal(train.x[row], pixels(picture, row))
    assert torch.equal(test.x[1], pixels(picture, 6))


def move(top: Path, pattern: str) -> None:
    for file in sorted(top.glob("*.parquet")):
        split, rest = file.name.split("-", 1)
        target = top / pattern.format(split=split, rest=rest, number=rest[:5])
        target.parent.mkdir(parents=True, exist_ok=True)
        file.rename(target)


@pytest.mark.parametrize(
    "pattern",
    [
        "data/{split}-{rest}",
        "plain_text/{split}-{rest}",
        "{split}/{number}.parquet",
        "default/{split}/{number}.parquet",
    ],
)
def test_layouts(top: Path, pattern: str) -> None:
    before = load(f"hf:{top}").fingerprint()
    move(top, pattern)
    (top / ".cache").mkdir()
    (top / ".cache" / "train-00000-of-00001.parquet").write_bytes(b"half a download")
    assert load(f"hf:{top}").fingerprint() == before


def test_a_file_stands_for_its_folder(top: Path) -> None:
    (top / "train-00001-of-00002.parquet").unlink()
    (top / "train-00000-of-00002.parquet").rename(top / "train.parquet")
    assert len(load(f"hf:{top / 'train.parquet'}")) == 3
    assert len(load(f"hf:{top / 'train.parquet'}", "test")) == 2


def test_a_split_is_not_taken_for_another(top: Path, picture: Picture) -> None:
    for name in ("train_small-00000-of-00001", "testing-00000-of-00001", "extra"):
        pq.write_table(table([picture(9)], [0]), top / f"{name}.parquet")
    assert (len(load(f"hf:{top}")), len(load(f"hf:{top}", "test"))) == (5, 2)


def test_validation_stands_in_for_an_absent_test_split(top: Path) -> None:
    expected = load(f"hf:{top}", "test").fingerprint()
    file = top / "test-00000-of-00001.parquet"
    file.rename(top / "validation-00000-of-00001.parquet")
    assert load(f"hf:{top}", "test").fingerprint() == expected
    assert load(f"hf:{top},test=validation", "test").fingerprint() == expected
    with pytest.raises(UserError, match="no split 'dev'; it has train-00000"):
        load(f"hf:{top},test=dev")


def test_columns_are_found_by_content(tmp_path: Path, picture: Picture) -> None:
    content = {
        "id": pa.array(["a", "b"]),
        "coarse_label": pa.array([0, 0], pa.int64()),
        "fine_label": pa.array([1, 0], pa.int16()),
        "thumbnail": pa.array([b"x", b"y"], pa.binary()),
        "image": pa.array([picture(0), picture(1)], pa.large_binary()),
        "mask": pa.array([pair(picture(2)), pair(picture(3))], HF_IMAGE),
    }
    for split in ("train", "test"):
        pq.write_table(pa.table(content), tmp_path / f"{split}.parquet")
    found = load(f"hf:{tmp_path}")
    assert found.y.tolist() == [1, 0]
    assert torch.equal(found.x[1], pixels(picture, 1))
    other = load(f"hf:{tmp_path},image=mask")
    assert torch.equal(other.x[1], pixels(picture, 3))


def test_images_may_lie_beside_the_table(top: Path, picture: Picture) -> None:
    expected = load(f"hf:{top}", "test").fingerprint()
    paths = []
    for seed in (5, 6):
        (top / f"{seed}.png").write_bytes(picture(seed))
        paths.append(pair(None, f"{seed}.png"))
    content = {"img": pa.array(paths, HF_IMAGE), "label": pa.array([1, 0], pa.int64())}
    pq.write_table(pa.table(content), top / "test-00000-of-00001.parquet")
    assert load(f"hf:{top}", "test").fingerprint() == expected


@pytest.mark.parametrize("way", ["up", "absolute", "link"])
def test_images_beside_the_table_lie_inside_the_folder(
    tmp_path: Path, picture: Picture, way: str
) -> None:
    top = tmp_path / "set"
    top.mkdir()
    secret = tmp_path / "secret.png"
    secret.write_bytes(picture(1))
    (top / "link.png").symlink_to(secret)
    path = {"up": "../secret.png", "absolute": str(secret), "link": "link.png"}[way]
    content = {
        "img": pa.array([pair(None, path), pair(picture(2))], HF_IMAGE),
        "label": pa.array([0, 1], pa.int64()),
    }
    for split in ("train", "test"):
        pq.write_table(pa.table(content), top / f"{split}.parquet")
    message = (
        f"train.parquet, row 0: its image '{re.escape(path)}' lies outside '{re.escape(str(top))}'"
    )
    with pytest.raises(UserError, match=message):
        load(f"hf:{top}").images(slice(2))


def test_scripts_of_the_hub_are_not_run() -> None:
    """From version 2.20 on, ``datasets`` runs a repository's code only where it is told to."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    (wanted,) = (each for each in project["optional-dependencies"]["hf"] if "datasets" in each)
    assert wanted == "datasets>=2.20"


def test_class_names_are_read(top: Path, picture: Picture) -> None:
    named = {"info": {"features": {"label": {"_type": "ClassLabel", "names": ["no", "yes"]}}}}
    for file in top.glob("*.parquet"):
        one = pq.read_table(file).replace_schema_metadata({"huggingface": json.dumps(named)})
        pq.write_table(one, file)
    assert load(f"hf:{top}").classes == ("no", "yes")
    # A label beyond the names, in either split.
    pq.write_table(table([picture(0)], [2]), top / "test-00000-of-00001.parquet")
    with pytest.raises(UserError, match=r"labels must be 0\.\.1, one for each class, got 2\.\.2"):
        load(f"hf:{top}", "test")


def test_both_splits_have_all_classes(top: Path, picture: Picture) -> None:
    pq.write_table(table([picture(0)], [2]), top / "test-00000-of-00001.parquet")
    assert load(f"hf:{top}").classes == load(f"hf:{top}", "test").classes == ("0", "1", "2")


def test_grey_images(tmp_path: Path, picture: Picture) -> None:
    grey = [picture(i, mode="L") for i in range(2)]
    for split in ("train", "test"):
        pq.write_table(table(grey, [0, 1]), tmp_path / f"{split}.parquet")
    assert load(f"hf:{tmp_path}").x.shape == (2, 1, 8, 8)
    pq.write_table(table([grey[0], picture(1)], [0, 1]), tmp_path / "test.parquet")
    assert load(f"hf:{tmp_path}").x.shape == (2, 3, 8, 8)


def test_sizes(top: Path, picture: Picture) -> None:
    pq.write_table(
        table([picture(5), picture(6, size=(9, 8))], [1, 0]), top / "test-00000-of-00001.parquet"
    )
    with pytest.raises(
        UserError, match=r"of-00001.parquet, row 1: size 9x8, .* 8x8; .*hf:.*,size=32"
    ):
        load(f"hf:{top}", "test")
    assert load(f"hf:{top},size=8", "test").x.shape == (2, 3, 8, 8)
    assert load(f"hf:{top},size=16").x.shape == (5, 3, 16, 16)


def refuse(text: str, message: str, split: str = "train", root: Path = Path("/nowhere")) -> str:
    with pytest.raises(UserError, match=message) as caught:
        load(text, split, root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_damaged_image(top: Path, picture: Picture) -> None:
    file = top / "train-00001-of-00002.parquet"
    for content, message in (
        (b"text", "not a readable image"),
        (picture(3)[:-60], "damaged image"),
        (None, "no image"),
    ):
        pq.write_table(table([picture(0), content], [0, 1]), file)
        assert refuse(f"hf:{top}", message).startswith(f"{file}, row 1: ")


def test_a_damaged_file(top: Path) -> None:
    file = top / "train-00000-of-00002.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    assert refuse(f"hf:{top}", "not a readable parquet file").startswith(str(file))
    file.write_bytes(b"PAR1" + bytes(200) + whole[204:])
    assert refuse(f"hf:{top}", "cannot be read").startswith(str(file))


def test_a_shard_without_the_column(top: Path, picture: Picture) -> None:
    file = top / "train-00001-of-00002.parquet"
    pq.write_table(table([picture(0)], [0], label="target"), file)
    assert refuse(f"hf:{top}", "column 'label' cannot be read").startswith(str(file))


def rewrite(top: Path, content: dict[str, object]) -> None:
    for file in top.glob("*.parquet"):
        pq.write_table(pa.table(content), file)


def test_ambiguous_columns_are_refused(top: Path, picture: Picture) -> None:
    image = pa.array([picture(0), picture(1)], pa.binary())
    number = pa.array([0, 1], pa.int64())
    rewrite(top, {"left": image, "right": image, "label": number})
    refuse(f"hf:{top}", "several columns of images: name one as image=NAME; it has left, right")
    rewrite(top, {"img": image, "age": number, "kind": number})
    refuse(f"hf:{top}", "several columns of labels: name one as label=NAME; it has age, kind")
    assert len(load(f"hf:{top},label=kind")) == 4
    refuse(f"hf:{top},label=kidn", "no column 'kidn'; did you mean 'kind'")
    refuse(f"hf:{top},label=img", "column 'img' holds no labels, but binary")
    refuse(f"hf:{top},image=age", "column 'age' holds no images, but int64")
    rewrite(top, {"img": image, "caption": pa.array(["cat", "dog"])})
    refuse(f"hf:{top}", "no column of labels; it has img, caption")
    rewrite(top, {"text": pa.array(["cat", "dog"]), "label": number})
    refuse(f"hf:{top}", "no column of images; it has text, label")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 0], "at least 2 classes are needed, got 1"),
        ([1, 3], r"labels in 'label' must be 0\.\.C-1 without a gap, got 2 values in 1\.\.3"),
        ([0, 7], r"got 2 values in 0\.\.7"),
        ([-1, 0], "1 of 2 images have no label .images without labels can be --extra-data, with"),
        ([0, None], "1 of 2 images have no label"),
        ([], "at least 2 classes are needed, got 0"),
    ],
)
def test_labels(top: Path, picture: Picture, labels: list[int], message: str) -> None:
    shutil.rmtree(top)
    top.mkdir()
    for split in ("train", "test"):
        images = [picture(i) for i in range(len(labels))]
        pq.write_table(table(images, labels), top / f"{split}.parquet")
    refuse(f"hf:{top}", message)


def pool(text: str) -> Split:
    return DATASETS.build(Spec.parse(text)).pool(Path("/nonexistent"))


def test_images_without_a_column_of_labels_are_extra_data_and_no_data_set(
    tmp_path: Path, picture: Picture
) -> None:
    content = {
        "img": pa.array([pair(picture(i)) for i in range(3)], HF_IMAGE),
        "from": pa.array(["a", "b", "c"]),
    }
    pq.write_table(pa.table(content), tmp_path / "train.parquet")
    found = pool(f"hf:{tmp_path}")
    assert found.y.tolist() == [-100] * 3
    drawn = {image.numpy().tobytes() for image in found.x}
    assert drawn == {pixels(picture, i).numpy().tobytes() for i in range(3)}
    refuse(f"hf:{tmp_path}", "no column of labels; it has img, from .*extra_labels=none.$")
    refuse(f"hf:{tmp_path}", "no split 'test'; it has train.parquet", "test")
    with pytest.raises(UserError, match="no column 'kind'"):
        pool(f"hf:{tmp_path},label=kind")


def test_numbers_that_need_not_be_labels_are_none_in_extra_data(
    tmp_path: Path, picture: Picture
) -> None:
    content = {
        "image": pa.array([picture(0), picture(1)], pa.binary()),
        "width": pa.array([8, 8], pa.int64()),
        "height": pa.array([3, 1], pa.int64()),
    }
    pq.write_table(pa.table(content), tmp_path / "train.parquet")
    found = pool(f"hf:{tmp_path}")
    assert (found.y.tolist(), found.classes) == ([-100] * 2, ())
    assert pool(f"hf:{tmp_path},label=height").y.tolist() == [1, 0]
    refuse(f"hf:{tmp_path}", "several columns of labels: name one as label=NAME; it has width, he")


@pytest.mark.parametrize(
    ("other", "why"), [("target", "cannot be read"), ("label", "holds no labels, but string")]
)
def test_extra_data_may_lie_beside_a_test_split_without_labels(
    top: Path, picture: Picture, other: str, why: str
) -> None:
    content = {"img": pa.array([picture(5)], pa.binary()), other: pa.array(["cat"])}
    pq.write_table(pa.table(content), top / "test-00000-of-00001.parquet")
    assert pool(f"hf:{top}").y.tolist() == [0, 1, 0, 1, 0]
    refuse(f"hf:{top}", f"test-00000.*: column 'label' {why}", "test")


def test_advice_on_labels_is_given_where_labels_are_missing(top: Path, picture: Picture) -> None:
    (top / "test-00000-of-00001.parquet").unlink()
    assert refuse(f"hf:{top}", "no split 'test'").endswith("(test=NAME names the test split)")
    file = top / "train-00001-of-00002.parquet"
    pq.write_table(table([picture(3), picture(4)], [1, None]), file)
    message = refuse(f"hf:{top}", "1 of 5 images have no label .images without labels can be --ex")
    assert "split" not in message


@pytest.mark.parametrize(
    ("labels", "numbers", "classes"),
    [
        ([7, 3, 7], [1, 0, 1], ("3", "7")),
        ([0, 0, 0], [0, 0, 0], ("0",)),
        ([-1, None, -1], [-100] * 3, ()),
        ([4, None, -1], [0, -100, -100], ("4",)),
    ],
)
def test_extra_data_may_have_gaps(
    tmp_path: Path, picture: Picture, labels: Any, numbers: list[int], classes: tuple[str, ...]
) -> None:
    pq.write_table(table([picture(i) for i in range(3)], labels), tmp_path / "train.parquet")
    found = pool(f"hf:{tmp_path}")
    # Images of one label are shuffled: each is found by its pixels.
    place = {pixels(picture, i).numpy().tobytes(): i for i in range(3)}
    order = [place[image.numpy().tobytes()] for image in found.x]
    assert found.y.tolist() == [numbers[i] for i in order]
    assert found.classes == classes


def test_a_label_beyond_the_names_is_refused_of_extra_data_too(top: Path, picture: Picture) -> None:
    named = {"info": {"features": {"label": {"_type": "ClassLabel", "names": ["no"]}}}}
    for file in top.glob("*.parquet"):
        one = pq.read_table(file).replace_schema_metadata({"huggingface": json.dumps(named)})
        pq.write_table(one, file)
    with pytest.raises(UserError, match=r"labels must be 0\.\.0, one for each class, got 0\.\.1"):
        pool(f"hf:{top}")


def test_folders_that_are_no_data_set(top: Path, tmp_path: Path) -> None:
    refuse(f"hf:{top}/none", "no such file or folder")
    refuse(f"hf:{top}/none.parquet", "no such file or folder")
    refuse("hf:./none", "no such file or folder")
    refuse("hf:a/b/c", "no such file or folder")
    (tmp_path / "empty").mkdir()
    refuse(f"hf:{top}/empty", "no .parquet files in it")
    (top / "train.csv").touch()
    refuse(f"hf:{top}/train.csv", "expected a .parquet file or a folder of them")
    move(top, "one/{split}-{rest}")
    shutil.copytree(top / "one", top / "two")
    refuse(f"hf:{top}", "holds several data sets; name one: .*/one, .*/two")
    assert len(load(f"hf:{top}/two")) == 5
    for file in (top / "two").glob("test*"):
        file.unlink()
    refuse(f"hf:{top}/two", ": no split 'test'; it has train-00000")
    for file in (top / "two").glob("train*"):
        file.rename(file.with_name(file.name.replace("train", "test")))
    refuse(f"hf:{top}/two", ": no split 'train'; it has test-00000")


def test_missing_packages_are_named(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.setitem(sys.modules, "datasets", None)
    extra = r"needs the extra: pip install -e '\.\[hf\]' where advbench is cloned"
    refuse(f"hf:{top}", f"^hf:{top} {extra}")
    refuse("hf:uoft-cs/cifar10", f"^hf:uoft-cs/cifar10 {extra}")


class Rows:
    """The part of ``datasets.Dataset`` that is used."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows
        self.features = SimpleNamespace(arrow_schema=rows.schema)

    def with_format(self, kind: str) -> "Rows":
        assert kind == "arrow"
        return self

    def __getitem__(self, rows: slice) -> Any:
        assert rows == slice(None)
        return self.rows


def hub(monkeypatch: pytest.MonkeyPatch, answer: Callable[..., object]) -> None:
    fake = SimpleNamespace(load_dataset=answer, disable_progress_bars=lambda: None)
    monkeypatch.setitem(sys.modules, "datasets", fake)


def test_a_name_on_the_hub(
    tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def answer(path: str, **named: object) -> dict[str, Rows]:
        asked.append((path, named))
        return {
            "train": Rows(table([picture(0), picture(1)], [1, 0], image="image")),
            "validation": Rows(table([picture(2)], [1], image="image")),
        }

    hub(monkeypatch, answer)
    train = load("hf:uoft-cs/cifar10", "train", tmp_path)
    assert asked == [("uoft-cs/cifar10", {"cache_dir": str(tmp_path / "huggingface")})]
    assert torch.equal(train.x[1], pixels(picture, 1))
    assert train.y.tolist() == [1, 0]
    assert torch.equal(load("hf:uoft-cs/cifar10", "test", tmp_path).x[0], pixels(picture, 2))
    refuse("hf:uoft-cs/cifar10,test=dev", "no split 'dev'; it has train, validation")


def test_a_damaged_image_from_the_hub(picture: Picture, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Rows(table([picture(0), b"text"], [1, 0]))
    hub(monkeypatch, lambda *_args, **_named: {"train": rows, "test": rows})
    refuse("hf:mnist", "^hf:mnist, train, row 1: not a readable image")


def test_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_args: object, **_named: object) -> None:
        raise ConnectionError("Couldn't reach\n'mnist' on the Hub")

    hub(monkeypatch, unreachable)
    refuse("hf:mnist", r"no folder here and could not be loaded from the hub \(no network, or")
