"""What input defenses withstand: the patch made for the net alone, and the patch made for both.

Each net is attacked by PGD on a square of pixels that may take any value.  *plain*: the square is
made for the net without a defense, as surely misclassified as can be, and shown to the net alone,
then to the net behind the defense (*transferred*).  *adaptive*: it is made through the defense, by
every backward pass that this declares, one after the other; an image counts as broken if one of
them broke it.  All verdicts are those of the net behind the defense, in float32; an image that is
wrong when clean counts as wrong.

Run: advbench train standard --dataset hf:PATH/cifar10-jpeg --model small-cnn --name net
     python benchmarks/input_defenses.py results/net --n 100 --side 8 --at 2,2
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_cli import Threat, load_run
from robustbench_cli.attacks.pgd import PGD
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.registry import Spec
from robustbench_cli.evaluation.batch_attack import Attacked, attack_batch
from robustbench_cli.evaluation.verifier import Verifier
from robustbench_cli.input_defenses import INPUT_DEFENSES, Backward, InputDefense
from robustbench_cli.models.defended import DefendedModel
from robustbench_cli.runs.records import data_name

DATA = Path(os.environ.get("ADVBENCH_DATA", "data"))
USUAL = ("lgs", "watermark", "watermark:mask=PATCH", "median:3", "jpeg", "bit-depth")


class Contest:
    """The images, the patch and the attack that every defense meets."""

    def __init__(self, net: nn.Module, x: Tensor, y: Tensor, patch: Tensor, steps: int) -> None:
        self.net, self.x, self.y = net, x, y
        self.threat = Threat("Linf", 1.0).bound(patch.expand(len(x), 1, *patch.shape))
        self.attack = PGD(steps=steps, step=0.1, climbs="margin")
        self.noise = Noise(0, torch.arange(len(x)))
        self.surest = self.attacked(net, early_stop=False).x

    def attacked(self, model: nn.Module, *, early_stop: bool = True) -> Attacked:
        """Attack every image of a model."""
        return attack_batch(
            model, self.x, self.y, self.attack, self.threat, self.noise, early_stop=early_stop
        )

    def right(self, model: nn.Module, x: Tensor, random: bool = False) -> Tensor:
        """Return how often each image (N) is classified correctly."""
        verdict = Verifier(model, random).verdict(
            x, self.x, self.y, self.threat, noise=self.noise.fork("verdict")
        )
        return verdict.share

    def row(self, called: str, defense: InputDefense | None) -> dict[str, object]:
        """Return the accuracies behind one defense, in per cent; None: of the net alone."""
        started = time.perf_counter()
        ways: tuple[Backward | None, ...] = (None,) if defense is None else defense.backwards
        models = [
            self.net if defense is None else DefendedModel(self.net, [defense], way).eval()
            for way in ways
        ]
        random = defense is not None and defense.randomised
        clean = self.right(models[0], self.x, random)
        moved = torch.minimum(clean, self.right(models[0], self.surest, random))
        left, each = clean, {}
        for way, model in zip(ways, models, strict=True):
            found = torch.minimum(clean, self.right(model, self.attacked(model).x, random))
            left = torch.minimum(left, found)
            each[way or "exact"] = percent(found)
        return {
            "defense": called,
            "clean": percent(clean),
            "transferred": percent(moved),
            "adaptive": percent(left),
            "by way back": each,
            "seconds": round(time.perf_counter() - started),
        }


def percent(share: Tensor) -> float:
    """Return the mean of shares (N) in per cent."""
    return round(100 * float(share.mean()), 2)


def main() -> None:
    """Print a line for the net alone and for each defense."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="the folder of a training run")
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--side", type=int, default=8, help="of the patch, in pixels")
    parser.add_argument("--at", default="2,2", help="row and column of its first pixel")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--defend", action="append")
    parser.add_argument("--out", type=Path, help="a JSON file for the rows")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    run = load_run(args.run)
    x, y = run.test_images(args.n, data_dir=DATA)
    top, left = map(int, args.at.split(","))
    patch = torch.zeros(x.shape[2:], dtype=torch.bool)
    patch[top : top + args.side, left : left + args.side] = True
    contest = Contest(run.model, x, y, patch, args.steps)
    print(f"{args.run}: {args.n} images, a patch of {args.side}x{args.side} at {args.at}")
    print(f"{'accuracy in %':24}{'clean':>12}{'transferred':>12}{'adaptive':>12}{'seconds':>9}")
    rows = []
    for text in ("no defense", *(args.defend or USUAL)):
        defense = None
        if rows:
            known = text.replace("PATCH", f"file:{_saved(patch)}")
            defense = INPUT_DEFENSES.build(Spec.parse(known))
        rows.append(contest.row(text, defense))
        cells = "".join(f"{rows[-1][key]:12.1f}" for key in ("clean", "transferred", "adaptive"))
        print(f"{text:24}{cells}{rows[-1]['seconds']:9}  {rows[-1]['by way back']}", flush=True)
    if args.out:
        about = {key: vars(args)[key] for key in ("n", "side", "at", "steps")}
        data = {"model": run.record.settings.model_name, "data": data_name(run.record)}
        args.out.write_text(json.dumps({**data, **about, "rows": rows}, indent=1) + "\n")


def _saved(patch: Tensor) -> str:
    """The path of a file with the patch as a mask."""
    path = Path(tempfile.gettempdir()) / "advbench-patch.npz"
    np.savez(path, mask=patch.numpy())
    return str(path)


if __name__ == "__main__":
    main()
