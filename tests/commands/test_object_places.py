"""Where objects are: black grounds, files of masks and boxes, and what is wrong with them."""

import numpy as np
import pytest
import torch

from robustbench_cli.commands.object_places import PlaceOptions, object_places
from robustbench_cli.core.errors import UserError

IDS = torch.tensor([4, 0])


@pytest.fixture
def x():
    images = torch.zeros(2, 1, 4, 6)
    images[0, 0, 1, 2:4] = 0.5
    images[1, 0, :2] = 0.1
    return images


def test_bright_pixels_are_the_object(x):
    found = object_places(PlaceOptions(), x, IDS)
    assert not found.unknown
    assert torch.equal(found.masks, x[:, 0] > 0)
    higher = object_places(PlaceOptions(above=0.2), x, IDS)
    assert higher.masks.flatten(1).sum(1).tolist() == [2, 0]


def test_images_without_a_dark_ground_have_no_mask(x):
    found = object_places(PlaceOptions(), x + 0.01, IDS)
    assert "no dark ground" in found.unknown
    assert "--masks" in found.unknown
    assert not found.masks.any()


def test_masks_in_a_file_go_by_the_image_s_position(x, tmp_path):
    masks = np.zeros((5, 4, 6), bool)
    masks[4, 0, 0] = masks[0, 3, 5] = True
    np.savez(tmp_path / "m.npz", mask=masks)
    found = object_places(PlaceOptions(masks=tmp_path / "m.npz"), x + 0.01, IDS)
    assert not found.unknown
    assert found.masks.nonzero().tolist() == [[0, 0, 0], [1, 3, 5]]


def test_boxes_are_read_from_either_kind_of_file(x, tmp_path):
    (tmp_path / "b.csv").write_text("index,x0,y0,x1,y1\n4,2,1,4,2\n4,0,0,1,1\n9,0,0,1,1\n")
    np.savez(tmp_path / "b.npz", index=np.array([4, 4]), box=np.array([[2, 1, 4, 2], [0, 0, 1, 1]]))
    for name in ("b.csv", "b.npz"):
        options = PlaceOptions(boxes=tmp_path / name)
        found = object_places(options, x, IDS)
        assert found.boxes == {0: [(2, 1, 4, 2), (0, 0, 1, 1)]}
        assert len(options.described["boxes"]) == 64


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0,1,2\n", "expected lines index,x0"),
        ("0,a,2,3,4\n", "expected lines"),
        ("0,1,1,1,2\n", "is empty or outside"),
        ("0,0,0,7,2\n", "outside images of 6 pixels across"),
        ("0,0,0,nan,2\n", "expected lines"),
        ("3,0,0,1,2\n", "no box of an image that is explained"),
        ("", "no box"),
    ],
)
def test_boxes_that_do_not_fit_are_refused_in_one_line(text, said, x, tmp_path):
    (tmp_path / "b.csv").write_text(text)
    with pytest.raises(UserError, match=said) as refused:
        object_places(PlaceOptions(boxes=tmp_path / "b.csv"), x, IDS)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((5, 6, 4)), "masks of"),
        (np.full((5, 4, 6), 2), "zeros and ones"),
        (np.zeros((4, 6)), "zeros and ones"),
        (np.zeros((4, 4, 6)), "has none"),
    ],
)
def test_masks_that_do_not_fit_are_refused(array, said, x, tmp_path):
    np.savez(tmp_path / "m.npz", mask=array)
    with pytest.raises(UserError, match=said):
        object_places(PlaceOptions(masks=tmp_path / "m.npz"), x, IDS)
    with pytest.raises(UserError, match=r"no \.npz file"):
        object_places(PlaceOptions(masks=tmp_path / "n.npz"), x, IDS)
