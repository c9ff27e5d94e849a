"""torchvision's networks with the head split off; no test downloads anything."""

import urllib.error
from pathlib import Path

import pytest
import torch
from torch import nn

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Spec
from robustbench_cli.models import MODELS, Classifier, Normalize, Shape
from robustbench_cli.models.weights import read_weights

IMAGENET_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
TINY = "shufflenet_v2_x0_5"


def shape(classes: int, side: int = 32, channels: int = 3) -> Shape:
    return Shape(channels, side, side, classes, (0.5,) * channels, (0.5,) * channels)


def build(text: str, of: Shape) -> Classifier:
    return MODELS.build(Spec.parse(text)).build(of)


@pytest.mark.parametrize("arch", ["mnasnet0_5", "mobilenet_v3_small"])
def test_logits_are_those_of_torchvision(arch: str) -> None:
    from torchvision.models import get_model

    torch.manual_seed(0)
    ours = build(f"torchvision:{arch},normalize=false", shape(6)).eval()
    torch.manual_seed(0)
    theirs = get_model(arch, weights=None, num_classes=6).eval()
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))


def test_a_transformer_works_at_its_own_size() -> None:
    model = build("torchvision:swin_t", shape(4)).eval()
    assert model(torch.rand(1, 3, 32, 32)).shape == (1, 4)
    assert model.head.in_features == 768


def test_auxiliary_classifiers_are_left_out() -> None:
    from torchvision import models as zoo

    from robustbench_cli.models.torchvision_zoo import _drop_auxiliary

    net = zoo.GoogLeNet(num_classes=5, init_weights=False)
    _drop_auxiliary(net)
    out = net.train()(torch.rand(2, 3, 32, 32))
    assert out.shape == (2, 5)
    assert not [name for name, _ in net.named_parameters() if name.startswith("aux")]


@pytest.fixture
def downloaded(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Return weights as if they had been downloaded."""
    from torchvision import models as zoo
    from torchvision.models._api import WeightsEnum

    torch.manual_seed(3)
    state: dict[str, torch.Tensor] = zoo.get_model(TINY, weights=None).state_dict()
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *_args, **_named: state)
    return state


def test_pretrained_brings_its_own_mean(downloaded: dict[str, torch.Tensor]) -> None:
    model = build(f"torchvision:{TINY},pretrained=true", shape(1000))
    assert isinstance(model.normalize, Normalize)
    torch.testing.assert_close(model.normalize.mean, IMAGENET_MEAN)
    assert torch.equal(model.head.weight, downloaded["fc.weight"])


def test_a_head_of_another_size_is_replaced(downloaded: dict[str, torch.Tensor]) -> None:
    model = build(f"torchvision:{TINY},pretrained=true", shape(7))
    assert model.head.weight.shape == (7, 1024)
    assert torch.equal(model.body.conv1[0].weight, downloaded["conv1.0.weight"])


@pytest.mark.usefixtures("downloaded")
def test_pretrained_can_do_without_normalisation() -> None:
    model = build(f"torchvision:{TINY},pretrained=true,normalize=false", shape(7))
    assert isinstance(model.normalize, nn.Identity)


def test_no_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def unreachable(*_args: object, **_named: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", unreachable)
    with pytest.raises(UserError, match=r"could not be downloaded.*--weights file\.pt") as caught:
        build(f"torchvision:{TINY},pretrained=true", shape(10))
    assert "\n" not in str(caught.value)
    out, err = capsys.readouterr()
    assert not out  # what is printed there is ours
    assert "Downloading" in err


@pytest.mark.parametrize(
    ("text", "of", "message"),
    [
        ("torchvision:resnet5", shape(10), "unknown torchvision model 'resnet5'; did you mean"),
        ("torchvision", shape(10), "arch"),
        ("torchvision:mnasnet0_5", shape(10, channels=1), "does not take images of 1x32x32"),
        ("torchvision:squeezenet1_1", shape(10), "no linear layer.*resnet50"),
        ("torchvision:alexnet", shape(10, side=32), "does not take images of 3x32x32"),
    ],
)
def test_mistakes_are_one_line(text: str, of: Shape, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build(text, of)
    assert "\n" not in str(caught.value)


def test_torchvision_s_own_weights_file_is_read_by_its_names(tmp_path: Path) -> None:
    """What a user downloads elsewhere; and the file that a run of ours leaves."""
    from torchvision.models import get_model

    plain = get_model(TINY, weights=None, num_classes=5).eval()
    torch.save(plain.state_dict(), tmp_path / "theirs.pt")
    config = MODELS.build(Spec.parse(f"torchvision:{TINY}"))
    ours = config.build(shape(5, side=64))
    config.read(ours, read_weights(tmp_path / "theirs.pt"))
    x = torch.rand(2, 3, 64, 64)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    expected = plain((x - IMAGENET_MEAN) / std)
    torch.testing.assert_close(ours.eval()(x), expected)
    torch.save(ours.state_dict(), tmp_path / "ours.pt")
    again = config.build(shape(5, side=64))
    config.read(again, read_weights(tmp_path / "ours.pt"))
    torch.testing.assert_close(again.eval()(x), expected)
