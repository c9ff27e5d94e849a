"""The arithmetic of a model is counted without torch's compiler, which is slow to load."""

import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from robustbench_cli.audit._budget import operations
from robustbench_cli.core.registry import Spec
from robustbench_cli.data.shape import Shape
from robustbench_cli.models import MODELS

SHAPE = Shape(3, 32, 32, 10, (0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize("name", ["small-cnn", "lenet", "preact-resnet-18"])
def test_operations_are_those_of_torch_s_own_counter(name):
    model = MODELS.build(Spec(name)).build(SHAPE).eval()
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(x)
    assert operations(model, x) == counter.get_total_flops() / 2


def test_products_without_modules_are_counted():
    class Products(torch.nn.Module):
        def forward(self, x):
            rows = x.flatten(1)
            return rows @ torch.ones(192, 7)

    assert operations(Products(), torch.rand(2, 3, 8, 8)) == 2 * 192 * 7


def test_what_cannot_be_counted_is_two_for_each_parameter():
    narrower = torch.nn.Linear(4, 3)
    assert operations(narrower, torch.rand(2, 5)) == 2 * 15


def test_an_evaluation_does_not_load_the_compiler(tmp_path):
    net = tmp_path / "net.py"
    net.write_text(
        "from torch import nn\n\n\ndef make():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    program = (
        "import sys; from robustbench_cli.cli import main; "
        f"code = main(['eval', '--model', '{net}:make', '--dataset', 'digits', '--attack', 'fgsm',"
        f"'--eps', '0.1', '--n', '4', '--out', {str(tmp_path)!r}, '--quiet']); "
        "sys.exit(code or 'torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
