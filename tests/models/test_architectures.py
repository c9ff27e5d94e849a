"""The networks are the published ones: tensors, parameter counts and initialisation."""

import math

import pytest
import torch
from torch import nn

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Spec
from robustbench_cli.models import MODELS, Classifier, Shape
from robustbench_cli.models._thin import ThinConv2d

MNIST = Shape(1, 28, 28, 10, (0.0,), (1.0,))
CIFAR = Shape(3, 32, 32, 10, (0.5,) * 3, (0.2,) * 3)


def build(text: str, shape: Shape, device: str = "cpu") -> Classifier:
    with torch.device(device):
        return MODELS.build(Spec.parse(text)).build(shape)


def shapes(model: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(p.shape) for p in model.parameters()]


@pytest.mark.parametrize(
    ("text", "shape", "count"),
    [
        ("small-cnn", MNIST, 312_202),
        ("strided-cnn", MNIST, 166_406),
        ("madry-cnn", MNIST, 3_274_634),
        ("lenet-5", MNIST, 61_706),
        ("lenet-caffe", MNIST, 431_080),
        ("mnist-cnn", MNIST, 21_840),
        ("mlp", MNIST, 2_919_434),
        ("mlp:layers=2,hidden=20,norm=none", MNIST, 16_330),
        ("mlp:layers=3,hidden=100,norm=none", MNIST, 99_710),
        ("resnet-110:dense=1024", CIFAR, 1_975_002),
        ("vgg-16", CIFAR, 33_646_666),
        ("preact-resnet-18", CIFAR, 11_172_170),
        ("resnet-18", CIFAR, 11_173_962),
        ("resnet18", CIFAR, 11_173_962),
        ("resnet-110", CIFAR, 1_704_154),
        ("cifar-resnet-110", CIFAR, 1_730_714),
        ("cifar-resnet-20", CIFAR, 272_474),
        ("ablation-cnn", MNIST, 3_319_898),
        ("ibp-small", CIFAR, 470_918),
        ("ibp-small", MNIST, 329_606),
        ("ibp-medium", CIFAR, 1_188_906),
        ("ibp-large", CIFAR, 17_190_602),
        ("deep-pursuit", MNIST, 144_266),
        ("deep-pursuit:iterations=0", MNIST, 144_266),
        ("layered-pursuit", MNIST, 144_266),
        ("deep-pursuit:units=128-256-4096", MNIST, 1_227_146),
        ("wrn-28-10", CIFAR, 36_479_194),
        ("wrn-34-10", CIFAR, 46_160_474),
        ("wide-resnet-34-10", CIFAR, 46_160_474),
        ("wideresnet-16-4", CIFAR, 2_748_890),
        ("wrn:depth=40,width=2", CIFAR, 2_243_546),
        ("digits-cnn:width=32", Shape(1, 8, 8, 10, (0.0,), (1.0,)), 66_154),
    ],
)
def test_parameter_counts(text: str, shape: Shape, count: int) -> None:
    assert sum(math.prod(each) for each in shapes(build(text, shape, "meta"))) == count


def test_small_cnn_tensors() -> None:
    convs = [(32, 1), (32, 32), (64, 32), (64, 64)]
    expected: list[tuple[int, ...]] = []
    for outputs, inputs in convs:
        expected += [(outputs, inputs, 3, 3), (outputs,)]
    for outputs, inputs in [(200, 1024), (200, 200), (10, 200)]:
        expected += [(outputs, inputs), (outputs,)]
    assert shapes(build("small-cnn", MNIST)) == expected


def preact_block(inputs: int, outputs: int) -> list[tuple[int, ...]]:
    norm: list[tuple[int, ...]] = [(inputs,), (inputs,), (outputs, inputs, 3, 3)]
    norm += [(outputs,), (outputs,), (outputs, outputs, 3, 3)]
    return norm + ([(outputs, inputs, 1, 1)] if inputs != outputs else [])


def preact_net(stem: int, widths: list[int], depth: int) -> list[tuple[int, ...]]:
    expected: list[tuple[int, ...]] = [(stem, 3, 3, 3)]
    inputs = stem
    for width in widths:
        for _ in range(depth):
            expected += preact_block(inputs, width)
            inputs = width
    return [*expected, (inputs,), (inputs,), (10, inputs), (10,)]


def test_preact_resnet_tensors() -> None:
    expected = preact_net(64, [64, 128, 256, 512], 2)
    assert shapes(build("preact-resnet-18", CIFAR, "meta")) == expected


def test_the_shortcut_of_fast_at_s_net_reads_the_input_itself() -> None:
    """Computed by hand from a block's own layers; the two forms have the same tensors."""
    torch.manual_seed(0)
    theirs = build("preact-resnet-18:width=4,shortcut=input", CIFAR).eval()
    ours = build("preact-resnet-18:width=4", CIFAR).eval()
    ours.load_state_dict(theirs.state_dict())
    x, body = torch.rand(2, 3, 32, 32), dict(theirs.body.named_children())
    nn.init.uniform_(body["stage2"][0].bn1.weight, 0.5, 2.0)
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        before = body["stage1"](body["stem"](theirs.normalize(x)))
        block = body["stage2"][0]
        inner = block.conv1(block.bn1(before).relu())
        expected = block.conv2(block.bn2(inner).relu()) + block.shortcut(before)
        torch.testing.assert_close(block(before), expected)
        assert not torch.allclose(ours(x), theirs(x), atol=1e-3)
        same = body["stage1"](body["stem"](ours.normalize(x)))  # identity shortcuts: no difference
        torch.testing.assert_close(ours.body.stage1(ours.body.stem(ours.normalize(x))), same)


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("preact-resnet-18", {"normalize": True, "width": 64}),
        ("resnet-110", {"normalize": True, "blocks": 18, "width": 16}),
    ],
)
def test_records_of_before_an_option_hold_the_net_that_they_trained(text, known) -> None:
    """They name no such option: its default is the net of then, and a record of it says no more."""
    made = MODELS.build(Spec(text, known))
    assert MODELS.describe(made) == {"name": text, **known}
    assert made == MODELS.build(Spec.parse(text))


@pytest.mark.parametrize("width", [1, 10])
def test_wide_resnet_tensors(width: int) -> None:
    expected = preact_net(16, [16 * width, 32 * width, 64 * width], 4)
    assert shapes(build(f"wrn-28-{width}", CIFAR, "meta")) == expected


def test_resnet_tensors() -> None:
    expected: list[tuple[int, ...]] = [(64, 3, 3, 3), (64,), (64,)]
    inputs = 64
    for width in [64, 64, 128, 128, 256, 256, 512, 512]:
        expected += [(width, inputs, 3, 3), (width,), (width,)]
        expected += [(width, width, 3, 3), (width,), (width,)]
        if inputs != width:
            expected += [(width, inputs, 1, 1), (width,), (width,)]
        inputs = width
    assert shapes(build("resnet-18", CIFAR, "meta")) == [*expected, (10, 512), (10,)]


def test_resnet_110_tensors() -> None:
    expected: list[tuple[int, ...]] = [(16, 3, 3, 3), (16,), (16,)]
    inputs = 16
    for middle in (w for w in (16, 32, 64) for _ in range(18)):
        outputs = 4 * middle
        expected += [(middle, inputs, 1, 1), (middle,), (middle,)]
        expected += [(middle, middle, 3, 3), (middle,), (middle,)]
        expected += [(outputs, middle, 1, 1), (outputs,), (outputs,)]
        if inputs != outputs:
            expected += [(outputs, inputs, 1, 1), (outputs,), (outputs,)]
        inputs = outputs
    assert shapes(build("resnet-110", CIFAR, "meta")) == [*expected, (10, 256), (10,)]


def test_a_bottleneck_adds_before_the_last_activation() -> None:
    body = build("resnet-110:blocks=2,width=4", CIFAR).eval().body
    same, halved = body.stage1[1], body.stage2[0]
    x = torch.randn(2, 16, 8, 8)
    with torch.no_grad():
        for block in (same, halved):
            block.conv3.weight.zero_()
        torch.testing.assert_close(same(x), x.clamp_min(0))
        projected = halved.shortcut[1](halved.shortcut[0](x)).clamp_min(0)
        assert projected.shape == (2, 32, 4, 4)
        torch.testing.assert_close(halved(x), projected)


def test_preact_shortcut_starts_from_the_activated_input() -> None:
    # With the inner branch silenced, a block is its shortcut: a projection of relu(bn(x)) where
    # the shape changes, the untouched x where it does not.
    model = build("preact-resnet-18:width=4", CIFAR).eval()
    same, halved = model.body.stage1[0], model.body.stage2[0]
    x = torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        for block in (same, halved):
            block.conv2.weight.zero_()
            block.bn1.bias.fill_(-0.3)
        assert torch.equal(same(x), x)
        activated = (x / math.sqrt(1 + halved.bn1.eps) - 0.3).clamp_min(0)
        projected = nn.functional.conv2d(activated, halved.shortcut.weight, stride=2)
        torch.testing.assert_close(halved(x), projected)


def test_resnet_adds_before_the_last_activation() -> None:
    block = build("resnet-18:width=4", CIFAR).eval().body.stage1[0]
    x = torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        block.conv2.weight.zero_()
        torch.testing.assert_close(block(x), x.clamp_min(0))


def test_average_pooling_is_the_published_one() -> None:
    model = build("wrn-10-1", CIFAR).eval()
    x = torch.rand(2, 3, 32, 32)
    maps: list[torch.Tensor] = []
    model.body.relu.register_forward_hook(lambda _m, _i, out: maps.append(out))
    with torch.no_grad():
        features = model.features(x)
    assert maps[0].shape == (2, 64, 8, 8)
    torch.testing.assert_close(features, nn.functional.avg_pool2d(maps[0], 8).flatten(1))


def test_small_cnn_starts_with_uniform_predictions() -> None:
    model = build("small-cnn", MNIST).eval()
    assert not model(torch.rand(3, 1, 28, 28)).any()
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert not any(conv.bias.any() for conv in convs)
    # Kaiming: std sqrt(2 / fan_in).
    assert convs[-1].weight.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.03)


def test_wide_resnet_starts_as_in_trades() -> None:
    model = build("wrn-16-2", CIFAR)
    assert not model.head.bias.any()
    for conv in (m for m in model.modules() if isinstance(m, nn.Conv2d)):
        fan_out = conv.out_channels * math.prod(conv.kernel_size)
        assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.15)


def test_dropout_is_where_the_paper_puts_it() -> None:
    model = build("wrn-10-1:dropout=0.3", CIFAR)
    rates = [m.p for m in model.modules() if isinstance(m, nn.Dropout)]
    assert rates == [0.3] * 3
    x = torch.rand(2, 3, 32, 32)
    assert not torch.equal(model(x), model(x))
    assert torch.equal(model.eval()(x), model(x))


@pytest.mark.parametrize("side", [16, 17, 28, 33])
def test_small_cnn_takes_any_size(side: int) -> None:
    shape = Shape(3, side, side + 1, 5, (0.0,) * 3, (1.0,) * 3)
    assert build("small-cnn", shape)(torch.rand(2, 3, side, side + 1)).shape == (2, 5)


@pytest.mark.parametrize("side", [8, 28, 33])
@pytest.mark.parametrize(
    "text", ["digits-cnn:width=4", "resnet-18:width=4", "preact-resnet-18:width=4", "wrn-10-1"]
)
def test_other_networks_take_any_size(text: str, side: int) -> None:
    shape = Shape(1, side, side, 5, (0.0,), (1.0,))
    assert build(text, shape)(torch.rand(2, 1, side, side)).shape == (2, 5)


@pytest.mark.parametrize(
    ("text", "shape", "message"),
    [
        ("small-cnn", Shape(1, 15, 28, 10, (0.0,), (1.0,)), "15x28 are too small.*at least 16"),
        ("strided-cnn", Shape(1, 3, 28, 10, (0.0,), (1.0,)), "3x28 are too small.*at least 4"),
        ("madry-cnn", Shape(1, 28, 3, 10, (0.0,), (1.0,)), "28x3 are too small.*at least 4"),
        ("lenet-5", Shape(1, 28, 11, 10, (0.0,), (1.0,)), "28x11 are too small.*at least 12"),
        ("vgg-16", MNIST, "28x28 are too small.*at least 32"),
        ("digits-cnn", Shape(1, 1, 8, 10, (0.0,), (1.0,)), "1x8 are too small.*at least 2"),
        ("wrn-30-10", CIFAR, "depth must be 6n [+] 4, such as 28 or 34, got 30"),
        ("wrn-12-1", CIFAR, "such as 10 or 16, got 12"),
        ("wrn-4-1", CIFAR, "such as 10, got 4"),
        ("wrn-28-0", CIFAR, "width"),
        ("wrn-28-10:dropout=1", CIFAR, "dropout"),
        ("small-cnn:dropout=-1", MNIST, "dropout"),
        ("resnet-18:width=0", CIFAR, "width"),
        ("resnet-19", CIFAR, "did you mean"),
        ("deep-pursuit:stages=4", Shape(1, 7, 8, 10, (0.0,), (1.0,)), "7x8 are .*at least 8"),
        ("deep-pursuit:residual=true", MNIST, "use residual=true with blocks=1 or more"),
        ("layered-pursuit:units=9,blocks=1,residual=true", MNIST, "without units"),
        (
            "deep-pursuit:sequential=true,accelerated=true",
            MNIST,
            "sequential",
        ),
        ("deep-pursuit:units=9-", MNIST, "units"),
        ("deep-pursuit:iterations=-1", MNIST, "iterations"),
    ],
)
def test_mistakes_are_one_line(text: str, shape: Shape, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build(text, shape)
    assert "\n" not in str(caught.value)


def test_signed_inputs_reach_from_minus_one_to_one() -> None:
    model = build("strided-cnn:normalize=signed", MNIST)
    ends = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1).expand(3, 1, 28, 28)
    assert model.normalize(ends)[:, 0, 0, 0].tolist() == [-1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("text", "least", "tensors"),
    [
        ("ibp-small", 10, [(16, 1, 4, 4), (32, 16, 4, 4), (100, 32), (10, 100)]),
        (
            "ibp-medium",
            16,
            [
                *((32, 1, 3, 3), (32, 32, 4, 4), (64, 32, 3, 3), (64, 64, 4, 4)),
                *((512, 64), (512, 512), (10, 512)),
            ],
        ),
        (
            "ibp-large",
            1,
            [
                *((64, 1, 3, 3), (64, 64, 3, 3), (128, 64, 3, 3), (128, 128, 3, 3)),
                *((128, 128, 3, 3), (512, 128), (10, 512)),
            ],
        ),
    ],
)
def test_nets_of_ibp(text: str, least: int, tensors: list[tuple[int, ...]]) -> None:
    """On the smallest images that leave one pixel; smaller ones are refused in one line."""
    net = build(text, Shape(1, least, least, 10, (0.0,), (1.0,)))
    weights = [shape for shape in shapes(net) if len(shape) > 1]
    assert weights == tensors
    assert net(torch.rand(2, 1, least, least)).shape == (2, 10)
    assert {type(m) for m in net.modules() if not list(m.children())} <= {
        type(net.normalize), nn.Conv2d, ThinConv2d, nn.ReLU, nn.Flatten, nn.Linear,
    }  # fmt: skip
    if least > 1:
        with pytest.raises(UserError, match=f"too small; both sides must be at least {least}$"):
            build(text, Shape(1, least - 1, least, 10, (0.0,), (1.0,)))


def test_sides_of_the_nets_of_ibp() -> None:
    """What is left of 28 and 32 pixels: a pixel of padding in the large one, none in the others."""
    sides = {
        (name, shape.height): next(
            p for p in build(name, shape, "meta").body.fc1.parameters()
        ).shape
        for name in ("ibp-small", "ibp-medium", "ibp-large")
        for shape in (MNIST, CIFAR)
    }
    assert {key: each[1] for key, each in sides.items()} == {
        ("ibp-small", 28): 32 * 10 * 10,
        ("ibp-small", 32): 32 * 12 * 12,
        ("ibp-medium", 28): 64 * 4 * 4,
        ("ibp-medium", 32): 64 * 5 * 5,
        ("ibp-large", 28): 128 * 14 * 14,
        ("ibp-large", 32): 128 * 16 * 16,
    }
