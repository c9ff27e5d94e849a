"""Images that fell, read from the file that an attack kept."""

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from robustbench_cli.core.errors import UserError
from robustbench_cli.evaluation.journal import write_arrays
from robustbench_cli.report.gallery import gallery
from robustbench_cli.runs import records

DDN = {"name": "ddn"}


@pytest.fixture
def attacked(tmp_path, trained, evaluated):
    """Write the images of an attack on six examples, of which the last is wrong when clean."""

    def make(shape, minimal=False, **changes):
        run = evaluated(trained(), {"ddn": (DDN, 1, {"minimal": minimal})}, n=6, clean=5)
        x = np.full((6, *shape), 0.5, np.float32)
        arrays = {
            "x": x,
            "x_adv": x + np.linspace(0.05, 0.25, 6, dtype=np.float32).reshape(6, 1, 1, 1),
            "y": np.zeros(6, int),
            "clean": np.array([0, 0, 0, 0, 0, 1]),
            "adversarial": np.array([1, 1, 0, 1, 1, 1]),
            "norm": np.array([0.5, 0.1, 0.2, 0.3, 0.25, 0.0], np.float32),
            "step": np.array([1, 2, -1, 4, 5, -1]),
            **changes,
        }
        path = write_arrays(tmp_path / "adversarial.npz", arrays)
        return replace(run, examples=records.filed(path)), tmp_path

    return make


def picture(uri):
    """Return the picture of a data URI, and its kind."""
    head, _, text = uri.partition(";base64,")
    return Image.open(io.BytesIO(base64.b64decode(text))), head.removeprefix("data:image/")


def test_what_was_right_and_is_wrong_is_there_the_nearest_first(attacked):
    found = gallery(*attacked((1, 8, 8)), 10)
    assert [image.name for image in found.images] == ["image 1", "image 4", "image 3", "image 0"]
    assert (found.fell, found.n) == (4, 6)
    assert found.images[0].clean.confidence is None
    assert found.gain == pytest.approx(1 / (2 * 0.21), rel=0.01)
    assert [image.step for image in gallery(*attacked((1, 8, 8)), 2).images] == [2, 5]


def test_the_surest_error_comes_first_where_confidences_are_known(attacked):
    sure = np.array([0.2, 0.3, 0.9, 0.8, np.nan, 1.0], np.float32)
    found = gallery(*attacked((1, 8, 8), adversarial_confidence=sure), 10)
    assert [image.name for image in found.images] == ["image 3", "image 1", "image 0", "image 4"]


def test_of_an_attack_for_the_nearest_image_only_what_is_within_the_radius_fell(attacked):
    found = gallery(*attacked((1, 8, 8), minimal=True), 10)  # the radius is 0.3
    assert [image.name for image in found.images] == ["image 1", "image 4", "image 3"]


@pytest.mark.parametrize(
    ("shape", "kind", "size"),
    [
        ((1, 8, 8), "png", (8, 8)),
        ((3, 32, 32), "png", (32, 32)),
        ((3, 300, 600), "jpeg", (256, 128)),
    ],
)
def test_pictures_are_small_and_keep_their_shape(attacked, shape, kind, size):
    image = gallery(*attacked(shape), 1).images[0]
    for uri in (image.clean.picture, image.adversarial.picture, image.difference):
        drawn, called = picture(uri)
        assert (called, drawn.size) == (kind, size)
    grey = np.asarray(picture(image.clean.picture)[0])
    assert abs(int(grey.mean()) - 128) <= 1


def test_a_file_without_an_array_is_damaged(attacked):
    run, folder = attacked((1, 8, 8))
    with np.load(folder / "adversarial.npz") as saved:
        rest = {name: saved[name] for name in saved.files if name != "norm"}
    path = write_arrays(folder / "adversarial.npz", rest)
    with pytest.raises(UserError, match=r"adversarial.npz is damaged: it has no 'norm'"):
        gallery(replace(run, examples=records.filed(path)), folder, 3)
    path.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        gallery(run, folder, 3)
