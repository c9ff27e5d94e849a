"""Layouts change how fast a network is, and nothing else."""

import copy

import torch
from torch import nn

from robustbench_cli.models import MODELS, Shape
from robustbench_cli.models.layout import LARGE, laid_out
from robustbench_cli.registry import Spec

CPU = torch.device("cpu")


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
