"""The cost of the default checks beside that of the attack, in passes and in seconds.

The share is given of the passes that the attack took, and of those that are planned: what it would
take if every image withstood it.

Run: python benchmarks/checks.py digits mnist preact-resnet-18
"""

import argparse
import os
from pathlib import Path

import torch
from torch import nn

from robustbench_cli import Threat, evaluate
from robustbench_cli.attacks import ATTACKS
from robustbench_cli.core.registry import Spec
from robustbench_cli.data import DATASETS
from robustbench_cli.data.shape import Shape
from robustbench_cli.models import MODELS

DATA = Path(os.environ.get("ADVBENCH_DATA", "data"))
CASES = {
    "digits": ("digits", "digits-cnn", Shape(1, 8, 8, 10, (0.5,), (0.5,)), 0.15, 200),
    "mnist": ("mnist", "small-cnn", Shape(1, 28, 28, 10, (0.5,), (0.5,)), 0.3, 1000),
    "preact-resnet-18": (
        f"hf:{DATA / 'cifar10-jpeg'}",
        "preact-resnet-18",
        Shape(3, 32, 32, 10, (0.5,) * 3, (0.25,) * 3),
        8 / 255,
        1000,
    ),
}


def taught(net: nn.Module, x: torch.Tensor, y: torch.Tensor, batches: int) -> nn.Module:
    """Train for a few batches, so that attacks have something to do."""
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    net.train()
    for step in range(batches):
        rows = torch.arange(64 * step, 64 * (step + 1)) % len(x)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
        optimizer.step()
    return net.eval()


def main() -> None:
    """Print a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", default=["digits"], choices=list(CASES))
    parser.add_argument("--attack", default="pgd20")
    parser.add_argument("--n", type=int)
    parser.add_argument("--batches", type=int, default=60)
    args = parser.parse_args()
    head = f"{'case':16}{'n':>5} {'robust':>7} {'images':>6}  passes: attack planned checks"
    print(head + "  of attack of planned control  seconds: attack checks control")
    for case in args.cases:
        dataset, model, shape, eps, n = CASES[case]
        data = DATASETS.build(Spec.parse(dataset)).load("test", DATA)
        n = args.n or n
        x, y = data.images(slice(None)), data.y
        net = taught(MODELS.build(Spec(model)).build(shape), x[n:], y[n:], args.batches)
        threat = Threat("Linf", eps)
        record = evaluate(net, x[:n], y[:n], attacks=args.attack, threat=threat).record
        attack, checked, control = record.attacks[args.attack], record.checked, record.control
        assert checked is not None
        passes = attack.forwards + attack.backwards + n
        cost = checked.forwards + checked.backwards
        stages = ATTACKS.build(Spec.parse(args.attack)).stages(threat, shape.classes)
        planned = n * sum(stage.attack.planned_passes for stage in stages)
        extra = (control.forwards, control.seconds) if control else (0, 0.0)
        print(
            f"{case:16}{n:5} {attack.robust_accuracy:7.1%} {checked.images:6}{passes:15}{planned:8}"
            f"{cost:7}{cost / passes:11.1%}{cost / planned:11.1%}{extra[0]:8}"
            f"{attack.seconds:16.2f}{checked.seconds:7.2f}{extra[1]:8.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
