"""Models of somebody else by name: each source with small weights; nothing is downloaded."""

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from robustbench_cli.core.errors import UserError
from robustbench_cli.models import Normalize, Shape
from robustbench_cli.models.fitting import fit_model
from robustbench_cli.models.sources import SOURCES, LoadRequest, find_source, prefixes
from robustbench_cli.models.sources._processor import normalization_of, reshaping_of

X = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def request(folder: Path, weights: Path | None = None, key: str | None = None, classes: int = 3):
    shape = Shape(3, 32, 32, classes, (0.0,) * 3, (1.0,) * 3)
    return LoadRequest(weights=weights, weights_key=key, folder=folder, shape=lambda: shape)


def logits(loaded, x=X, classes=3):
    names = [f"class {i}" for i in range(classes)]
    fitted = fit_model(loaded.model, loaded.fitting, x, names, two=False)
    return fitted.around(loaded.model).eval()(x)


@pytest.fixture
def offline(monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("name", SOURCES.names())
def test_every_source_explains_itself_and_leaves_other_names_alone(name):
    cls = SOURCES.entry(name).cls
    assert cls.__doc__
    assert cls.from_text("no such model") is None
    assert cls.from_text("none:such") is None
    assert isinstance(find_source(cls.example.split()[0]), cls)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("net.py:make", "file"),
        ("~/nets/net.py:Net", "file"),
        ("timm:resnet18", "timm"),
        ("hf:folder/with:colon", "hf"),
        ("robustbench:Wong2020Fast,dataset=cifar10", "robustbench"),
        ("torchvision:resnet18", "architecture"),
        ("preact-resnet-18:width=8", "architecture"),
        ("a/model.pt2", "program"),
        ("a/model.pt", "program"),
    ],
)
def test_a_name_finds_its_source(text, source):
    assert SOURCES.name_of(find_source(text)) == source


@pytest.mark.parametrize("text", ["tim:resnet18", "small-cn", ""])
def test_an_unknown_name_says_what_there_is(text):
    with pytest.raises(UserError, match="unknown model") as caught:
        find_source(text)
    assert all(f"{prefix}:" in str(caught.value) for prefix in prefixes())


@pytest.mark.parametrize("name", ["timm:resnet18", "hf:somewhere", "robustbench:Wong2020Fast"])
def test_a_missing_package_is_one_line(name, tmp_path, monkeypatch):
    for package in ("timm", "transformers", "robustbench"):
        for module in [each for each in sys.modules if each.partition(".")[0] == package]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=r"needs the package (\w+): pip install -e '\.\[(\1)\]'"):
        find_source(name).load(request(tmp_path))


def test_timm_with_a_checkpoint(tmp_path):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    net = timm.create_model("test_vit", num_classes=3).eval()
    torch.save({"state_dict": net.state_dict()}, tmp_path / "w.pt")
    loaded = find_source("timm:test_vit").load(request(tmp_path, tmp_path / "w.pt"))
    (said,) = loaded.notes
    assert said.startswith("images are normalised as the architecture's published weights expect")
    size = net.pretrained_cfg["input_size"][1]
    assert loaded.fitting.made_for == (size, size)
    x = torch.rand(2, 3, size, size)
    mean, std = (torch.tensor(net.pretrained_cfg[k]).view(3, 1, 1) for k in ("mean", "std"))
    assert torch.allclose(logits(loaded, x), net((x - mean) / std), atol=1e-5)


def test_timm_s_mistakes(tmp_path, offline):
    pytest.importorskip("timm")
    with pytest.raises(UserError, match="unknown timm model 'resnet81'; did you mean"):
        find_source("timm:resnet81").load(request(tmp_path))
    with pytest.raises(
        UserError, match=r"cannot be had: .*get model.*pass --weights FILE"
    ) as caught:
        find_source("timm:resnet10t").load(request(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["ViT", "ResNet"])
def test_transformers_from_a_folder(tmp_path, kind):
    package = pytest.importorskip("transformers")
    names = {0: "class 2", 1: "other", 2: "class 0", 3: "class 1"}
    sizes = {
        "ViT": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        | {"intermediate_size": 16, "image_size": 32, "patch_size": 8},
        "ResNet": {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1]},
    }
    torch.manual_seed(0)
    config = getattr(package, f"{kind}Config")(id2label=names, **sizes[kind])
    net = getattr(package, f"{kind}ForImageClassification")(config).eval()
    package.logging.disable_progress_bar()
    net.save_pretrained(tmp_path / "net")
    side, mean, std = 32, [0.2, 0.3, 0.4], [0.5, 0.6, 0.7]
    package.ViTImageProcessor(
        size={"height": side, "width": side}, image_mean=mean, image_std=std
    ).save_pretrained(tmp_path / "net")
    loaded = find_source(f"hf:{tmp_path / 'net'}").load(request(tmp_path))
    m, s = (torch.tensor(part).view(3, 1, 1) for part in (mean, std))
    with torch.no_grad():
        own = net((X - m) / s).logits
    found = logits(loaded)
    assert torch.allclose(found, own[:, [2, 3, 0]], atol=1e-4)  # cut to the data's, by name
    small = torch.nn.functional.interpolate(X, (16, 16))
    assert logits(loaded, small).shape == (2, 3)  # images of another size are resized


CROP = {"do_center_crop": True, "crop_size": {"height": 32, "width": 32}}
PROCESSORS = {
    "shorter side, then crop": ("BitImageProcessor", {"size": {"shortest_edge": 40}, **CROP}),
    "both sides, then crop": ("DeiTImageProcessor", {"size": {"height": 40, "width": 44}, **CROP}),
    "crop larger than the image": (
        "CLIPImageProcessor",
        {"size": {"shortest_edge": 21}, "crop_size": {"height": 32, "width": 37}},
    ),
    "a share of the shorter side": (
        "ConvNextImageProcessor",
        {"size": {"shortest_edge": 32}, "crop_pct": 0.875},
    ),
    "both sides, from one": ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}}),
    "eight sevenths": ("LevitImageProcessor", {"size": {"shortest_edge": 32}, **CROP}),
    "bilinear": ("BitImageProcessor", {"size": {"shortest_edge": 35}, "resample": 2, **CROP}),
    "no resize": ("BitImageProcessor", {"do_resize": False, **CROP}),
}
"""Image processors, by what they do to the size of images."""


@pytest.mark.parametrize("what", PROCESSORS)
@pytest.mark.parametrize("size", [(48, 37), (33, 61), (32, 32)])
def test_images_are_resized_and_cut_as_the_processor_of_transformers_does_it(what, size):
    package = pytest.importorskip("transformers")
    name, settings = PROCESSORS[what]
    processor = getattr(package, name)(**settings)
    given = normalization_of(processor)
    reshaping, notes = reshaping_of(processor, given, 3)
    assert notes == ()
    levels = np.random.default_rng(3).integers(80, 176, (*size, 3), dtype=np.uint8)
    x = torch.from_numpy(levels).permute(2, 0, 1)[None] / 255
    layers = reshaping.for_images(size).layers()
    found = torch.nn.Sequential(*layers, Normalize(*given))(x)
    own = processor(images=Image.fromarray(levels), return_tensors="pt")["pixel_values"]
    assert found.shape == own.shape
    std = torch.tensor(given.std).view(3, 1, 1)
    assert ((found - own) * std).abs().max() < 2 / 255  # it rounds to bytes in between


def test_what_a_processor_does_besides_is_said():
    package = pytest.importorskip("transformers")
    processor = package.MobileViTImageProcessor()  # it exchanges red and blue
    _, (note,) = reshaping_of(processor, normalization_of(processor), 3)
    assert note.startswith("the image processor does more than the resizing, cutting and norm")
    broken = package.ImageGPTImageProcessor()  # it wants colours to round to
    _, (note,) = reshaping_of(broken, normalization_of(broken), 3)
    assert "Clusters must be provided" in note


def test_a_model_of_transformers_is_shown_the_centre_of_larger_images(tmp_path):
    package = pytest.importorskip("transformers")
    torch.manual_seed(0)
    shape = {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1]}
    net = package.ResNetForImageClassification(package.ResNetConfig(num_labels=3, **shape)).eval()
    package.logging.disable_progress_bar()
    net.save_pretrained(tmp_path / "net")
    package.BitImageProcessor(size={"shortest_edge": 40}, **CROP).save_pretrained(tmp_path / "net")
    loaded = find_source(f"hf:{tmp_path / 'net'}").load(request(tmp_path))
    x = torch.rand(2, 3, 40, 50)
    fitted = fit_model(loaded.model, loaded.fitting, x, ("a", "b", "c"), two=False)
    assert fitted.settings["crop"] == [32, 32]
    assert "resize" not in fitted.settings  # their shorter side has 40 pixels already
    assert fitted.notes == (
        "images of 40x50 are cut to the 32x32 in their centre inside the model; eps is in their "
        "own pixels",
    )
    model = fitted.around(loaded.model)
    edge = x.clone()
    edge[:, :, :, :9] = 0.5
    edge[:, :, :4] = 0.5
    assert torch.equal(model(edge), model(x))
    edge[:, :, 4, 9] = 1 - edge[:, :, 4, 9]
    assert not torch.equal(model(edge), model(x))


def test_code_beside_transformers_weights_is_not_run(tmp_path):
    pytest.importorskip("transformers")
    sprung = tmp_path / "sprung"
    (tmp_path / "config.json").write_text(
        '{"model_type": "trap", "auto_map": {"AutoConfig": "trap.Trap", '
        '"AutoModelForImageClassification": "trap.Trap"}}'
    )
    (tmp_path / "trap.py").write_text(f"open({str(sprung)!r}, 'w')\nclass Trap: pass\n")
    with pytest.raises(UserError, match="cannot be loaded"):
        find_source(f"hf:{tmp_path}").load(request(tmp_path))
    assert not sprung.exists()


def test_transformers_mistakes(tmp_path, offline):
    pytest.importorskip("transformers")
    for name in ("no/such-model", str(tmp_path)):
        with pytest.raises(UserError, match=r"cannot be loaded: .*hf:FOLDER") as caught:
            find_source(f"hf:{name}").load(request(tmp_path))
        assert "\n" not in str(caught.value)


def published(state, prefix, own=("mu", "sigma"), inner=""):
    """A state dict as RobustBench's zoo has it: without the normalisation, under prefixes."""
    return {
        prefix + name.removeprefix(inner): value
        for name, value in state.items()
        if name.rpartition(".")[2] not in own
    }


@pytest.mark.parametrize(
    ("name", "wrap", "said"),
    [
        ("Wong2020Fast,dataset=cifar10", lambda s: published(s, ""), "'mu', 'sigma' not in"),
        (
            "Hendrycks2020AugMix_WRN,dataset=cifar10",
            lambda s: {"state_dict": published(s, "module."), "epoch": 3},
            "'mu', 'sigma' not in",
        ),
        (
            "Salman2020Do_R18",
            lambda s: {
                "state_dict": {
                    f"module.{name.removeprefix('model.')}": value
                    for name, value in s.items()
                    if not name.startswith("normalize.")
                }
            },
            "'normalize.mean', 'normalize.std' not in",
        ),
        (
            "Engstrom2019Robustness,dataset=cifar10,threat=L2",
            lambda s: {"model": published(s, "module.model.")},
            "'mu', 'sigma' not in",
        ),
    ],
    ids=["bare", "parallel", "imagenet", "both prefixes"],
)
def test_robustbench_s_published_layouts(tmp_path, name, wrap, said):
    pytest.importorskip("torchdiffeq")
    source = find_source(f"robustbench:{name}")
    _, _, entry = source._entry()
    torch.manual_seed(0)
    net = entry["model"]().eval()
    torch.save(wrap(net.state_dict()), tmp_path / "w.pt")
    loaded = source.load(request(tmp_path, tmp_path / "w.pt"))
    assert len(loaded.notes) == 1
    assert loaded.notes[0].startswith(said)
    state = loaded.model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    assert "robustbench" not in sys.modules  # the architectures alone


def test_robustbench_s_mistakes(tmp_path):
    pytest.importorskip("torchdiffeq")
    for name, message in (
        ("Wong2020Fest", "unknown RobustBench model 'Wong2020Fest'; did you mean 'Wong2020Fast'"),
        ("Wong2020Fast", "dataset=cifar10,threat=Linf, dataset=imagenet,threat=Linf"),
        ("Chen2020Adversarial", "made of 3 weights files"),
    ):
        with pytest.raises(UserError, match=message):
            find_source(f"robustbench:{name}").load(request(tmp_path))


def test_a_robustbench_file_that_is_there_is_taken(tmp_path, monkeypatch):
    pytest.importorskip("torchdiffeq")
    source = find_source("robustbench:Hendrycks2020AugMix_WRN,dataset=cifar10")
    net = source._entry()[2]["model"]()
    path = tmp_path / "robustbench" / "cifar10" / "corruptions" / "Hendrycks2020AugMix_WRN.pt"
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(UserError, match="needs the package gdown"):
        source.load(request(tmp_path))
    assert not (tmp_path / "robustbench").exists()
    path.parent.mkdir(parents=True)
    torch.save(net.state_dict(), path)
    assert source.load(request(tmp_path)).notes == ()


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    ).eval()


def test_an_exported_program(tmp_path):
    net = small_net()
    batch = torch.export.Dim("batch")
    program = torch.export.export(net, (X,), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "net.pt2")
    loaded = find_source(str(tmp_path / "net.pt2")).load(request(tmp_path))
    x = torch.cat([X, X, X]).requires_grad_()
    found = logits(loaded, x)
    assert torch.allclose(found, net(x), atol=1e-6)
    assert torch.autograd.grad(found.sum(), x)[0].abs().sum() > 0
    assert not any(module.training for module in loaded.model.modules())
    torch.export.save(torch.export.export(net, (X,)), tmp_path / "two.pt2")
    fixed = find_source(str(tmp_path / "two.pt2")).load(request(tmp_path))
    with pytest.raises(UserError, match="cannot take images of shape"):
        logits(fixed, torch.cat([X, X]))


def test_a_torchscript_program(tmp_path):
    net = small_net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(net), tmp_path / "net.pt")
    loaded = find_source(str(tmp_path / "net.pt")).load(request(tmp_path))
    assert torch.allclose(logits(loaded), net(X), atol=1e-6)


def test_what_is_no_program(tmp_path):
    torch.save(small_net().state_dict(), tmp_path / "w.pt")
    (tmp_path / "w.pt2").write_bytes(b"nothing")
    for name in ("w.pt", "w.pt2"):
        with pytest.raises(UserError, match="a state dict goes with the model that it is for"):
            find_source(str(tmp_path / name)).load(request(tmp_path))
    with pytest.raises(UserError, match="no such file"):
        find_source(str(tmp_path / "none.pt2")).load(request(tmp_path))
    with pytest.raises(UserError, match="leave --weights out"):
        find_source("w.pt").load(request(tmp_path, tmp_path / "w.pt"))


def test_torchvision_takes_the_number_of_classes_of_its_weights(tmp_path):
    from torchvision.models import get_model

    torch.manual_seed(0)
    net = get_model("shufflenet_v2_x0_5", num_classes=7).eval()
    torch.save(net.state_dict(), tmp_path / "w.pt")
    loaded = find_source("torchvision:shufflenet_v2_x0_5,normalize=false").load(
        request(tmp_path, tmp_path / "w.pt")
    )
    assert torch.allclose(loaded.model.eval()(X), net(X), atol=1e-5)
