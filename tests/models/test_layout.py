"""Memory layouts change the speed of a network and none of its results."""

import copy
import ctypes.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from robustbench_cli.core.registry import Spec
from robustbench_cli.models import MODELS, Shape
from robustbench_cli.models.layout import LARGE, NARROW, laid_out, restore_classes, row_major

CPU = torch.device("cpu")
TRAIN_NARROW = Path(__file__).with_name("train_narrow.py")


def net():
    shape = Shape(3, 16, 16, 10, (0.5,) * 3, (0.25,) * 3)
    return MODELS.build(Spec("preact-resnet-18", {"width": 32})).build(shape)


def test_only_kernels_too_large_for_a_core_s_cache_are_contiguous():
    model = laid_out(net(), CPU)
    large = 0
    for conv in (m for m in model.modules() if isinstance(m, nn.Conv2d)):
        wide = 4 * conv.weight.numel() > LARGE and conv.kernel_size != (1, 1)
        large += wide
        out = conv(torch.rand(2, conv.in_channels, 8, 8).to(memory_format=torch.channels_last))
        assert out.is_contiguous(memory_format=torch.channels_last) != wide
    assert large == 4  # the last stage's 3x3 convolutions: 128 or 256 channels to 256


def test_logits_and_gradients_are_those_of_the_plain_network():
    plain = net().double()
    model = laid_out(copy.deepcopy(plain), CPU)
    assert model.state_dict().keys() == plain.state_dict().keys()
    x, y = torch.rand(4, 3, 16, 16).double(), torch.arange(4)
    results = []
    for each in (plain, model):
        leaf = x.clone().requires_grad_()
        nn.functional.cross_entropy(each(leaf), y).backward()
        results.append([leaf.grad, *(p.grad for p in each.parameters())])
    torch.testing.assert_close(*results)


def strided(channels, *, kernel=1, stride=2, groups=1, kind=nn.Conv2d):
    return kind(channels, 2 * channels, kernel, stride, groups=groups)


def runs_contiguously(conv):
    """Return True if a convolution laid out for a CPU gives contiguous outputs for channels_last
    images."""
    image = torch.rand(2, conv.in_channels, 8, 8).contiguous(memory_format=torch.channels_last)
    return laid_out(conv, CPU)(image).stride() == torch.empty(2, conv.out_channels, 4, 4).stride()


class Scaled(nn.Conv2d):
    """A user's own convolution class."""

    def forward(self, x, factor=2.0):
        return factor * super().forward(x)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6, 7, 8, NARROW - 1])
@pytest.mark.parametrize("kind", [nn.Conv2d, Scaled])
def test_narrow_strided_1x1_convolutions_run_contiguously_on_a_cpu(channels, kind):
    assert runs_contiguously(strided(channels, kind=kind))


def test_other_small_convolutions_run_in_channels_last():
    assert not runs_contiguously(strided(NARROW))
    assert not runs_contiguously(nn.Conv2d(4, 8, 3, 2, padding=1))
    assert runs_contiguously(strided(8, groups=8))  # 1 channel in each group


def test_a_reparametrised_convolution_follows_the_same_rule():
    conv = nn.utils.parametrizations.weight_norm(strided(4))
    assert runs_contiguously(conv)
    assert all(p.stride() == row_major(p).stride() for p in conv.parameters())


def test_a_user_s_convolution_class_computes_what_it_did_and_comes_back():
    conv = strided(4, kind=Scaled)
    x = torch.rand(2, 4, 8, 8)
    expected = conv(x), conv(x, 3.0)
    model = laid_out(nn.Sequential(conv), CPU)
    torch.testing.assert_close((model[0](x), model[0](x, 3.0)), expected)
    copied = copy.deepcopy(model)
    torch.testing.assert_close(copied(x), expected[0])
    assert type(restore_classes(laid_out(copied, CPU))[0]) is Scaled


def test_strides_of_a_single_channel_are_those_of_a_contiguous_image():
    image = torch.rand(2, 1, 4, 4).to(memory_format=torch.channels_last)
    assert row_major(image).stride() == (16, 16, 4, 1)
    assert row_major(torch.rand(8, 2, 1, 1).to(memory_format=torch.channels_last)).stride() == (
        *(2, 1, 1, 1),
    )


def crashed(environment):
    """Return the architectures whose narrowest network crashed its child process in training."""
    # Since glibc 2.34 malloc's checks live in a library of their own.
    preload = "libc_malloc_debug.so.0" if ctypes.util.find_library("c_malloc_debug") else ""
    checks = {"MALLOC_CHECK_": "3", "MALLOC_PERTURB_": "165", "LD_PRELOAD": preload}
    run = subprocess.run(
        [sys.executable, str(TRAIN_NARROW)],
        env={**os.environ, **checks, **environment},
        cwd=TRAIN_NARROW.parents[2],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


# oneDNN picks its kernels by processor; the variable makes any x86 processor take the older ones.
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs child processes by fork")
@pytest.mark.parametrize("isa", ["DEFAULT", "AVX2"])
def test_the_narrowest_network_of_every_architecture_trains_without_a_native_crash(isa):
    assert crashed({"ONEDNN_MAX_CPU_ISA": isa}) == ""
