"""Models as users bring them."""

import pytest
import torch


@pytest.fixture
def net_file(tmp_path, digits_model):
    """The trained digits net as a user's own model file, with the function ``make``."""
    torch.save(digits_model[0].state_dict(), tmp_path / "net.pt")
    file = tmp_path / "net.py"
    file.write_text(
        "import torch\n"
        "from pathlib import Path\n"
        "from robustbench_cli.models import MODELS, Shape\n"
        "from robustbench_cli.registry import Spec\n"
        "def make():\n"
        "    shape = Shape(1, 8, 8, 10, (0.0,), (1.0,))\n"
        "    net = MODELS.build(Spec('digits-cnn', {'width': 8})).build(shape)\n"
        "    net.load_state_dict(torch.load(Path(__file__).with_name('net.pt')))\n"
        "    return net.eval()\n"
    )
    return file
