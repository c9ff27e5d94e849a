"""Train every registered architecture at its narrowest, in a child process.

A script, run by test_layout.py under malloc's checks: prints a line per architecture that a child
did not survive, and nothing else.  A crash in native code cannot be caught in the process itself.
"""

import faulthandler
import os
import signal
from contextlib import suppress

import torch
from torch import nn

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Spec
from robustbench_cli.models import MODELS, ModelConfig, Shape
from robustbench_cli.models.layout import laid_out

LIMIT = 60
"""Seconds that a child may take; a corrupted heap can also hang."""

NEEDED = {
    "torchvision": {"arch": "shufflenet_v2_x0_5"},
    "wrn": {"depth": 10, "width": 1},
    "resnet-110": {"blocks": 1},
}
"""What an architecture cannot be built without, or what makes a deep one short."""


def narrowest(name: str) -> list[ModelConfig]:
    """Return the smallest networks of an architecture: every width from 1 to 3 that it takes."""
    needed = NEEDED.get(name, {})
    if not MODELS.accepts(name, "width") or "width" in needed:
        return [MODELS.build(Spec(name, needed))]
    made = []
    for width in range(1, 4):
        with suppress(UserError, ValueError):
            made.append(MODELS.build(Spec(name, {**needed, "width": width})))
    return made


def train(config: ModelConfig) -> None:
    """Train for a few updates as ``advbench train`` does on a CPU."""
    shape = Shape(3, 32, 32, 10, mean=(0.5,) * 3, std=(0.25,) * 3)
    model = laid_out(config.build(shape), torch.device("cpu"))
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for _ in range(2):
        x = torch.rand(8, 3, 32, 32).contiguous(memory_format=torch.channels_last)
        x.requires_grad_()
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), torch.arange(8)).backward()
        optimizer.step()
        # Blocks of many sizes, so that what was written behind a buffer's end is noticed.
        _ = [torch.rand(7 * j + 1) for j in range(40)]


def survives(*configs: ModelConfig) -> bool:
    """Return True if a child process that trains these networks ends normally."""
    pid = os.fork()
    if not pid:
        with suppress(BaseException):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            # The default action of SIGALRM ends the process even inside native code.
            signal.alarm(LIMIT)
            for config in configs:
                train(config)
            os._exit(0)
        os._exit(1)
    _, status = os.waitpid(pid, 0)
    return status == 0


if __name__ == "__main__":
    faulthandler.disable()
    torch.set_num_threads(1)
    every = {name: narrowest(name) for name in MODELS.names()}
    # To start a child takes longer than to train in it: only after a crash each has one of its own.
    if not survives(*(config for configs in every.values() for config in configs)):
        for name, configs in every.items():
            bad = [config for config in configs if not survives(config)]
            if bad:
                print(name, bad[0])
