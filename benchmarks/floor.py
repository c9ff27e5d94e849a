"""The time of an update, and a lower bound: the time of its convolutions alone."""

import copy
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from robustbench_cli.models.layout import laid_out


@dataclass(kw_only=True)
class Side:
    """Seconds per update, and the losses; the first update is the warm-up."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def median(self, clock: str = "seconds") -> float:
        """Of the updates that count."""
        return statistics.median(getattr(self, clock)[1:])


class Clock:
    """Seconds on the wall and on the CPU, waiting for the device at both ends."""

    def __init__(self, device: torch.device) -> None:
        self._wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
        self.start()

    def start(self) -> None:
        """Start to measure."""
        self._wait()
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def stop(self, side: Side, loss: float) -> None:
        """Stop to measure, and add the time to ``side``."""
        self._wait()
        side.seconds.append(time.perf_counter() - self._wall)
        side.cpu_seconds.append(time.process_time() - self._cpu)
        side.losses.append(loss)


@dataclass(frozen=True, kw_only=True)
class Floor:
    """The time of the convolutions alone, each on its own input: a lower bound for any loop."""

    seconds: dict[str, float]
    """CPU seconds (a GPU's: on the wall) of one batch: ``forward``, ``input`` and ``weight``."""
    operations: float
    """Floating-point operations of one forward pass, in billions; a backward part has as many."""

    def of(self, passes: Mapping[str, int]) -> float:
        """Seconds of an update that takes so many passes."""
        return sum(count * self.seconds[part] for part, count in passes.items())


def floor(network: nn.Module, x: Tensor) -> Floor:
    """Time every convolution by itself, in our layout and float32, and add up the best of each."""
    model = laid_out(copy.deepcopy(network), x.device)
    seen: list[tuple[nn.Conv2d, Tensor]] = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(lambda m, args: seen.append((m, args[0].detach())))
    with torch.no_grad():
        model(x.contiguous(memory_format=torch.channels_last))
    parts = dict.fromkeys(("forward", "input", "weight"), 0.0)
    operations = 0.0
    for conv, image in list(seen):
        leaf = image.clone().requires_grad_()
        out = conv(leaf)
        gradient = partial(torch.autograd.grad, out, grad_outputs=torch.randn_like(out))
        parts["forward"] += _best(partial(conv, leaf), x.device)
        parts["input"] += _best(partial(gradient, leaf, retain_graph=True), x.device)
        parts["weight"] += _best(partial(gradient, conv.weight, retain_graph=True), x.device)
        operations += 2e-9 * out.numel() * conv.weight[0].numel()
    return Floor(seconds=parts, operations=operations)


def _best(run: Callable[[], object], device: torch.device) -> float:
    side, clock = Side(), Clock(device)
    for _ in range(4):
        clock.start()
        run()
        clock.stop(side, 0.0)
    return min(side.cpu_seconds if device.type == "cpu" else side.seconds)
