"""Which pixels each rule frees, and what a mistake in one costs."""

import numpy as np
import pytest
import torch
from torch import nn

from robustbench_cli import masks
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Spec
from robustbench_cli.core.threat import Threat
from robustbench_cli.masks import MASKS, MaskContext, bind_to_images, canonical


class Linear(nn.Module):
    """Its input gradient is known: a multiple of the row of weights."""

    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def forward(self, x):
        score = (x * self.weight).flatten(1).sum(1)
        return torch.stack([score, -score], 1)


def free(text, x, model=None, y=None, ids=None):
    y = torch.zeros(len(x), dtype=torch.long) if y is None else y
    found = MASKS.build(Spec.parse(text)).free(
        MaskContext(model=model or nn.Identity(), x=x, y=y, ids=ids)
    )
    assert found.dtype == torch.bool
    assert found.shape[0] == len(x)
    assert found.shape[2:] == x.shape[2:]
    return found


def picture(found):
    """The first image's mask, a word per row."""
    return ["".join("o" if pixel else "." for pixel in row) for row in found[0, 0].tolist()]


def test_threshold_frees_what_no_channel_is_above():
    x = torch.tensor([[[[0.0, 0.1], [0.11, 0.9]], [[0.0, 0.0], [0.0, 0.0]]]])
    assert picture(free("threshold:above=0.1", x)) == ["oo", ".."]
    assert picture(free("background:0.5", x)) == ["oo", "o."]
    assert picture(free("threshold:above=0.1,inverse=true", x)) == ["..", "oo"]
    x[0, 1, 0, 0] = 0.2  # the second channel is as good a reason
    assert picture(free("threshold", x)) == [".o", ".."]


def test_border_and_box():
    x = torch.rand(2, 3, 4, 6)
    assert picture(free("border", x)) == ["oooooo", "o....o", "o....o", "oooooo"]
    assert picture(free("border:2", x)) == ["oooooo"] * 4
    assert not free("border:width=0", x).any()
    assert picture(free("box:share=0.5", x)) == ["......", ".ooo..", ".ooo..", "......"]
    assert picture(free("box:share=0.5,inverse=true", x)) == [
        "oooooo",
        "o...oo",
        "o...oo",
        "oooooo",
    ]
    assert picture(free("box:0.01", x)) == ["......", "..o...", "......", "......"]
    assert free("box:1", x).all()


def test_saliency_keeps_the_largest_gradients_of_the_label_s_loss():
    weight = torch.tensor([[[1.0, -9.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 5.0]]])
    x = torch.rand(2, 2, 2, 2)
    assert picture(free("saliency:top=0.25", x, Linear(weight))) == ["o.", "oo"]  # -9
    assert picture(free("saliency:0.5", x, Linear(weight))) == ["o.", "o."]  # and 5
    assert free("saliency:0", x, Linear(weight)).all()
    assert not free("saliency:1", x, Linear(weight)).any()


def test_saliency_sees_through_a_model_that_is_sure():
    """In float32 the label's share rounds to one, and its logit would have no gradient."""

    class Sure(nn.Module):
        def forward(self, x):
            one, two, three, _ = x.flatten(1).unbind(1)
            return torch.stack([25 + 5 * one, two, three], 1)

    x = torch.full((1, 1, 2, 2), 0.1)
    assert picture(free("saliency:0.25", x, Sure())) == [".o", "oo"]


def test_saliency_neither_trains_nor_remembers(model, batch):
    x, y = batch
    model.train()
    before = {name: b.clone() for name, b in model.named_buffers()}
    free("saliency", x, model, y)
    assert model.training
    torch.testing.assert_close(dict(model.named_buffers()), before, rtol=0, atol=0)
    assert all(p.grad is None for p in model.parameters())
    shares = nn.functional.one_hot(y, 4).double()
    assert torch.equal(free("saliency", x, model, shares), free("saliency", x, model, y))


def test_a_file_is_for_all_images_or_for_each(tmp_path):
    x = torch.rand(3, 3, 2, 2)
    one, each, colour = (tmp_path / f"{name}.npz" for name in ("one", "each", "colour"))
    np.savez(one, mask=np.array([[1, 0], [0, 0]]))
    assert free(f"file:{one}", x).flatten(1).tolist() == [[True, False, False, False]] * 3
    drawn = np.arange(5 * 4).reshape(5, 2, 2) % 3 == 0
    np.savez(each, mask=drawn)
    ids = torch.tensor([4, 0, 1])
    assert np.array_equal(free(f"file:{each}", x, ids=ids)[:, 0].numpy(), drawn[[4, 0, 1]])
    np.savez(colour, mask=np.random.default_rng(0).random((5, 3, 2, 2)) < 0.5)
    assert free(f"file:{colour}", x, ids=ids).shape == (3, 3, 2, 2)


def test_a_file_s_content_is_part_of_its_name(tmp_path):
    path = tmp_path / "m.npz"
    np.savez(path, mask=np.eye(2))
    said = canonical(f"file:{path}")
    assert canonical(said) == said
    np.savez(path, mask=np.ones((2, 2)))
    assert canonical(f"file:{path}") != said
    with pytest.raises(UserError, match="is not the recorded file"):
        canonical(said)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((2, 2), 0.5), "zeros and ones"),
        (np.ones(4), "zeros and ones"),
        (None, "no .npz file with an array 'mask'"),
    ],
)
def test_a_damaged_file_is_one_clear_line(array, message, tmp_path):
    path = tmp_path / "m.npz"
    np.savez(path, **({"other": np.ones(1)} if array is None else {"mask": array}))
    with pytest.raises(UserError, match=message) as error:
        canonical(f"file:{path}")
    assert "\n" not in str(error.value)


def test_a_file_that_does_not_fit_says_so(tmp_path):
    x, path = torch.rand(3, 1, 2, 2), tmp_path / "m.npz"
    np.savez(path, mask=np.ones((2, 4, 4)))
    with pytest.raises(UserError, match="is for 2 images, image number 3 has none"):
        free(f"file:{path}", x, ids=torch.arange(3))
    with pytest.raises(UserError, match=r"has shape \(2, 4, 4\), the images are \(1, 2, 2\)"):
        free(f"file:{path}", x[:2], ids=torch.arange(2))
    with pytest.raises(UserError, match="in training images are shuffled and moved"):
        free(f"file:{path}", x)
    path.write_bytes(b"no archive")
    with pytest.raises(UserError, match="with an array 'mask'"):
        canonical(f"file:{path}")
    with pytest.raises(UserError, match="cannot be read: No such file"):
        canonical(f"file:{tmp_path / 'none.npz'}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("treshold", "did you mean 'threshold'"),
        ("threshold:over=0.2", "no parameter 'over'"),
        ("threshold:above=1", "less than 1"),
        ("box:share=0", "greater than 0"),
        ("saliency:top=1.2", "less than or equal to 1"),
        ("border:width=-1", "greater than or equal to 0"),
    ],
)
def test_a_mistake_is_named(text, message):
    with pytest.raises(UserError, match=message):
        canonical(text)


def test_records_keep_every_parameter():
    assert canonical("background") == "threshold:above=0.1"
    assert canonical("box:1/4,inverse=true") == "box:inverse=true,share=0.25"
    assert canonical("") == ""
    for name in set(MASKS.names()) - {"file"}:
        assert canonical(canonical(name)) == canonical(name)


def test_a_threat_without_a_mask_stays_itself_and_two_masks_both_hold():
    context = MaskContext(model=nn.Identity(), x=torch.rand(2, 1, 4, 4), y=torch.zeros(2).long())
    plain = Threat("Linf", 0.1)
    assert bind_to_images(plain, context) is plain
    framed = bind_to_images(Threat("Linf", 0.1, "border:width=1"), context)
    both = masks.bind_to_images(Threat("Linf", 0.1, "box:share=0.5"), context).bound(framed.free)
    assert not both.free.any()
    assert str(framed) == "Linf 0.1, mask border:width=1"


def test_masks_say_whether_they_are_the_same_for_every_image(tmp_path):
    np.savez(tmp_path / "one.npz", mask=np.eye(4))
    np.savez(tmp_path / "each.npz", mask=np.stack([np.eye(4)] * 2))
    texts = ("box", "border", f"file:{tmp_path}/one.npz", "threshold", f"file:{tmp_path}/each.npz")
    fixed = [MASKS.build(Spec.parse(text)).fixed for text in texts]
    assert fixed == [True, True, True, False, False]
