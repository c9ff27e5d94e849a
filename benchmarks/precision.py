"""What bfloat16 does to the inner attack of TRADES, on trained runs.

    python benchmarks/precision.py results/precision-mnist/trades-float32-s0 --data-dir ~/data

On test images the run's model is attacked as TRADES attacks it (ten steps on the divergence from
the clean prediction, from the Gaussian start), in evaluation mode, three times: in float32; in
bfloat16 as trainings do, with clean logits and the first gradient in float32; and in bfloat16
throughout.  One line per run and way: the share of pixels in which the first gradient has the sign
that it has in float32 (guessing gives 50 %), and the mean divergence after one step and after all,
which is measured in float32.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustbench_cli import load_run
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.gradient_ascent import Ascent, ascend, fixed_logits, gradient
from robustbench_cli.core.losses import kl
from robustbench_cli.core.model_modes import full_float32
from robustbench_cli.core.threat import Threat
from robustbench_cli.models import Classifier


@dataclass(frozen=True, kw_only=True)
class RoundedThroughout(Ascent):
    """An ascent that takes no gradient in full float32."""

    @property
    def exact_steps(self) -> int:
        return 0


WAYS: dict[str, tuple[bool, type[Ascent]]] = {
    "float32": (False, Ascent),
    "bf16": (True, Ascent),
    "bf16 throughout": (True, RoundedThroughout),
}
"""Whether the model runs in bfloat16, and the ascent that is made on it."""


@dataclass(frozen=True, kw_only=True)
class Climb:
    """How far an inner attack came."""

    signs: float
    """Share of the first gradient's signs that are those in float32."""
    first: float
    """Mean divergence after one step."""
    last: float
    """Mean divergence after all steps."""


@contextmanager
def rounding(model: Classifier, low_precision: bool) -> Iterator[None]:
    """Run the model in bfloat16, or in float32, until the context is left."""
    before, model.low_precision = model.low_precision, low_precision
    try:
        yield
    finally:
        model.low_precision = before


def climbed(model: Classifier, x: Tensor, threat: Threat, way: str) -> Climb:
    """Attack images (B, C, H, W) in [0, 1] in one of the ``WAYS``."""
    low, kind = WAYS[way]
    # The settings of ``trades``.
    climb = kind(steps=10, step=7 / 31, start="gauss")
    noise = Noise(0, torch.arange(len(x)))
    start, exact = climb.begin(x, threat, noise), fixed_logits(model, x)
    with full_float32(model):
        _, wanted = gradient(model, kl, exact, start)
    with rounding(model, low), torch.no_grad():
        target = exact if climb.exact_steps else model(x)
    with rounding(model, low and not climb.exact_steps):
        _, found = gradient(model, kl, target, start)

    def reached(steps: int) -> float:
        with rounding(model, low):
            end = ascend(model, kl, target, x, threat, noise, replace(climb, steps=steps))
        return float(kl(fixed_logits(model, end), exact).mean())

    signs = (found.sign() == wanted.sign())[wanted != 0].float().mean()
    return Climb(signs=float(signs), first=reached(1), last=reached(climb.steps))


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", nargs="+", help="folders of training runs")
    parser.add_argument("--n", type=int, default=500, help="how many test images")
    parser.add_argument("--data-dir", default="data", help="where data sets are")
    asked = parser.parse_args()
    print("| run | inner attack in | signs | KL, 1 step | KL, 10 steps |")
    print("| :-- | :-- | --: | --: | --: |")
    for name in asked.runs:
        run = load_run(name)
        assert isinstance(run.model, Classifier)
        x, _ = run.test_images(asked.n, data_dir=asked.data_dir)
        for way in WAYS:
            found = climbed(run.model.requires_grad_(False), x, run.threat, way)
            share = f"{100 * found.signs:.1f} %"
            print(f"| {run.record.id} | {way} | {share} | {found.first:.4f} | {found.last:.4f} |")


if __name__ == "__main__":
    main()
