"""Models as users bring them, and interruptions at a chosen moment."""

import pytest
import torch

from robustbench_cli.commands.display import Display
from robustbench_cli.training.trainer import Trainer


@pytest.fixture(scope="module")
def measured_at_the_end():
    """Training measures accuracies after its last epoch only: they take as long as an epoch."""
    measure = Trainer._measure

    def measured(self, split, epoch):
        last = epoch + 1 == self.options.epochs
        return measure(self, split, epoch) if last else (None, None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_measure", measured)
        yield


@pytest.fixture
def net_file(tmp_path, digits_model):
    """The trained digits net as a user's own model file, with the function ``make``."""
    torch.save(digits_model[0].state_dict(), tmp_path / "net.pt")
    file = tmp_path / "net.py"
    file.write_text(
        "import torch\n"
        "from pathlib import Path\n"
        "from robustbench_cli.models import MODELS, Shape\n"
        "from robustbench_cli.core.registry import Spec\n"
        "def make():\n"
        "    shape = Shape(1, 8, 8, 10, (0.0,), (1.0,))\n"
        "    net = MODELS.build(Spec('digits-cnn', {'width': 8})).build(shape)\n"
        "    net.load_state_dict(torch.load(Path(__file__).with_name('net.pt')))\n"
        "    return net.eval()\n"
    )
    return file


class Stop(Display):
    """Ctrl-C after an epoch, or in the middle of one."""

    def __init__(self, epoch, batches=None):
        self._epoch, self._batches, self._done = epoch, batches, 0

    def epoch(self, row):
        self._done = row["epoch"]
        if self._batches is None and self._done == self._epoch:
            raise KeyboardInterrupt

    def batch(self, watch):
        if self._batches and self._done == self._epoch and watch.batch == self._batches:
            raise KeyboardInterrupt


@pytest.fixture
def stopping():
    """A maker of displays that interrupt: after an epoch, or at a batch of the next one."""
    return Stop
