"""Files of arrays: accepted names and layouts, and the messages about others."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Spec
from robustbench_cli.data import DATASETS, Split

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (6, 3, 8, 5), dtype=np.uint8)
LABELS = np.array([2, 0, 1, 2, 1, 0], dtype=np.uint8)


def load(path: Path, split: str = "test", options: str = "") -> Split:
    return DATASETS.build(Spec.parse(f"npz:{path}{options}")).load(split, Path())


@pytest.mark.parametrize("names", [("image", "label"), ("x", "y")])
@pytest.mark.parametrize("packed", [np.savez, np.savez_compressed])
def test_both_layouts_are_the_same_images(tmp_path, names, packed):
    image, label = names
    for images in (PIXELS, PIXELS.transpose(0, 2, 3, 1)):
        packed(tmp_path / "set.npz", **{image: images, label: LABELS})
        split = load(tmp_path / "set.npz")
        assert torch.equal(split.x, torch.from_numpy(PIXELS))
        assert split.x.is_contiguous()
        assert split.y.tolist() == LABELS.tolist()
        assert split.y.dtype == torch.int64
        assert split.classes == ("0", "1", "2")


def test_grey_images_need_no_axis_for_their_channel(tmp_path):
    np.savez(tmp_path / "set.npz", x=PIXELS[:, 0], y=LABELS)
    assert torch.equal(load(tmp_path / "set.npz").x, torch.from_numpy(PIXELS[:, :1]))


def test_splits_agree_on_the_classes(tmp_path):
    path = tmp_path / "set.npz"
    np.savez(path, x=PIXELS, y=LABELS, x_test=PIXELS[:2], y_test=np.array([1, 4]))
    assert len(load(path, "test")) == 2
    assert load(path, "train").classes == load(path, "test").classes == tuple("01234")


def test_a_file_without_a_test_split_can_be_evaluated_and_not_trained_on(tmp_path):
    """Trained on, its images would be those of the test, too."""
    np.savez(tmp_path / "set.npz", image=PIXELS, label=LABELS)
    assert torch.equal(load(tmp_path / "set.npz", "test").x, torch.from_numpy(PIXELS))
    with pytest.raises(UserError, match=r"no array 'image_test' or 'x_test' in it; it has image"):
        load(tmp_path / "set.npz", "train")


@pytest.mark.parametrize(
    "names",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("images", "labels", "images_val", "labels_val"),
        ("X", "Y", "X_test", "Y_test"),
    ],
)
def test_other_names_of_arrays(tmp_path, names):
    arrays = (PIXELS, LABELS, PIXELS[:3], LABELS[:3])
    np.savez(tmp_path / "set.npz", **dict(zip(names, arrays, strict=True)))
    assert len(load(tmp_path / "set.npz", "train")) == 6
    assert load(tmp_path / "set.npz", "test").y.tolist() == LABELS[:3].tolist()


def test_floats_are_bytes_where_that_loses_nothing_and_are_kept_where_it_does(tmp_path):
    path = tmp_path / "set.npz"
    np.savez(path, x=PIXELS / np.float32(255), y=LABELS)
    whole = load(path)
    np.savez(path, x=PIXELS, y=LABELS)
    assert (whole.x.dtype, whole.fingerprint()) == (torch.uint8, load(path).fingerprint())
    between = (PIXELS / 255 * 0.999).astype(np.float32)
    np.savez(path, x=between.transpose(0, 2, 3, 1), y=LABELS)
    kept = load(path)
    assert torch.equal(kept.images(slice(None)), torch.from_numpy(between))
    np.savez(path, x=PIXELS / 100, y=LABELS)
    with pytest.raises(UserError, match=r"set.npz: images must be in \[0, 1\], got 0 to 2.55; div"):
        load(path)


@pytest.mark.parametrize(
    "labels",
    [
        np.eye(3)[LABELS],
        np.eye(3, dtype=bool)[LABELS],
        LABELS[:, None],
        LABELS.astype(float),
        np.array(["cat", "ant", "bee", "cat", "bee", "ant"]),
        np.array([b"cat", b"ant", b"bee", b"cat", b"bee", b"ant"]),
    ],
    ids=["one-hot", "bool", "column", "float", "text", "bytes"],
)
def test_labels_of_other_forms(tmp_path, labels):
    np.savez(tmp_path / "set.npz", x=PIXELS, y=labels)
    found = load(tmp_path / "set.npz")
    assert found.classes == (("ant", "bee", "cat") if labels.dtype.kind in "US" else tuple("012"))
    assert found.y.tolist() == LABELS.tolist()


def test_one_hot_rows_say_how_many_classes_there_are(tmp_path):
    """Also where the first and the last have no image: then no label is shifted."""
    np.savez(tmp_path / "set.npz", x=PIXELS, y=np.eye(5)[LABELS + 1])
    found = load(tmp_path / "set.npz")
    assert (found.y.tolist(), found.classes) == ((LABELS + 1).tolist(), tuple("01234"))
    assert not found.notes


def test_labels_from_one_are_shifted_with_a_word(tmp_path):
    path = tmp_path / "set.npz"
    np.savez(path, x=PIXELS, y=LABELS + 1)
    found = load(path)
    assert (found.y.tolist(), found.classes) == (LABELS.tolist(), ("1", "2", "3"))
    assert "labels run from 1 to 3: label 1 is taken to be the first class" in found.notes[0]
    plain = load(path, options=",first=0")
    assert (plain.y.tolist(), plain.notes) == ((LABELS + 1).tolist(), ())
    np.savez(path, x=PIXELS, y=np.array([1, 1, 3, 3, 4, 4]))  # a gap: it may lack class 0, too
    assert load(path).y.tolist() == [1, 1, 3, 3, 4, 4]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": PIXELS}, "no array 'label' or 'y' in it; it has x"),
        ({"x": PIXELS.astype(int), "y": LABELS}, "or floats in .0, 1., got int64"),
        ({"x": PIXELS, "y": LABELS[:5]}, "6 images and 5 labels"),
        ({"x": PIXELS, "y": LABELS / 2}, r"labels must be whole numbers \(N\), .*got float64"),
        ({"x": PIXELS, "y": np.eye(3)[LABELS] * 2}, r"one-hot, each row a single 1, got float64"),
        ({"x": PIXELS[:, :2], "y": LABELS}, "with 1 or 3 channels, got .6, 2, 8, 5."),
        ({"x": PIXELS[..., :3], "y": LABELS}, "with 1 or 3 channels, got .6, 3, 8, 3."),
        ({"x": PIXELS[0, 0], "y": LABELS}, "with 1 or 3 channels, got .8, 5."),
        ({"x": PIXELS[:0], "y": LABELS[:0]}, "at least 2 classes are needed, got 0"),
        ({"x": PIXELS, "y": LABELS * 0}, "at least 2 classes are needed, got 1"),
        ({"x": PIXELS, "y": LABELS.astype(int) - 1}, "2 of 6 images have no label .*--labeller"),
        ({"x": PIXELS, "y": LABELS.astype(int) * 10**11}, "label 200000000000 is too high"),
        ({"x": PIXELS, "y": LABELS.astype(object)}, "damaged, or arrays of objects"),
    ],
)
def test_arrays_that_cannot_be_used_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(UserError, match=message) as caught:
        load(tmp_path / "set.npz")
    assert "\n" not in str(caught.value)


def pool(path: Path) -> Split:
    return DATASETS.build(Spec.parse(f"npz:{path}")).pool(Path())


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"x": PIXELS}, "no array 'label' or 'y' in it; it has x"),
        ({"x": PIXELS, "x_test": PIXELS, "y_test": LABELS}, "no array 'label' or 'y' in it"),
        ({"x": PIXELS, "y": np.full(6, -1)}, "6 of 6 images have no label"),
        ({"x": PIXELS, "y": np.full(6, -100, np.int16)}, "6 of 6 images have no label"),
    ],
)
def test_images_without_labels_are_extra_data_and_no_data_set(tmp_path, arrays, why):
    np.savez(tmp_path / "set.npz", **arrays)
    found = pool(tmp_path / "set.npz")
    assert torch.equal(found.x, torch.from_numpy(PIXELS))
    assert found.y.tolist() == [-100] * 6
    advice = "images without labels can be --extra-data, with --labeller RUN or --set train.extra_"
    with pytest.raises(UserError, match=rf"set.npz: {why}.* \({advice}labels=none\)$") as caught:
        load(tmp_path / "set.npz", "train")
    assert "\n" not in str(caught.value)


def test_partial_labels_are_kept(tmp_path):
    np.savez(tmp_path / "set.npz", x=PIXELS, y=np.array([2, -1, 0, 1, -1, 2]))
    found = pool(tmp_path / "set.npz")
    assert found.y.tolist() == [2, -100, 0, 1, -100, 2]
    assert found.classes == ("0", "1", "2")


def test_extra_data_may_be_of_one_class_and_must_have_an_image(tmp_path):
    path = tmp_path / "set.npz"
    np.savez(path, x=PIXELS, y=LABELS * 0)
    assert pool(path).y.tolist() == [0] * 6
    np.savez(path, x=PIXELS[:0])
    with pytest.raises(UserError, match=r"set\.npz: no images"):
        pool(path)
    np.savez(path, y=LABELS)
    with pytest.raises(UserError, match="no array 'image' or 'x' in it; it has y"):
        pool(path)


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, mark):
        self._mark = mark

    def __reduce__(self):
        return Path.touch, (self._mark,)


def test_nothing_is_unpickled(tmp_path):
    trap = np.array([Trap(tmp_path / "mark")], dtype=object)
    np.savez(tmp_path / "set.npz", x=PIXELS, y=trap)
    with pytest.raises(UserError, match="arrays of objects"):
        load(tmp_path / "set.npz")
    assert not (tmp_path / "mark").exists()


def test_damaged_files_are_named(tmp_path):
    path, whole = tmp_path / "set.npz", io.BytesIO()
    np.savez_compressed(whole, x=PIXELS, y=LABELS)
    intact = whole.getvalue()
    refused = []
    for place in range(0, len(intact), 7):
        spoilt = bytearray(intact)
        spoilt[place] ^= 0xFF
        for content in (intact[:place], bytes(spoilt)):
            path.write_bytes(content)
            try:
                split = load(path)
            except UserError as error:
                refused.append(str(error))
            else:  # a byte that means nothing to the reader, such as a date
                assert torch.equal(split.x, torch.from_numpy(PIXELS))
    assert all(str(path) in message and "\n" not in message for message in refused)
    assert len(refused) > len(intact) // 7  # every file that was cut short, at the least
    with pytest.raises(UserError, match="no such file"):
        load(tmp_path / "other.npz")
    np.save(tmp_path / "one.npy", PIXELS)
    with pytest.raises(UserError, match="not written by numpy"):
        load(tmp_path / "one.npy")
