"""The true accuracy of each member of the zoo, by an attack that knows what the model hides.

    python tests/zoo/truth.py                       # all that truth.json lacks
    python tests/zoo/truth.py state:cached_answers  # these, again

The differentiable stand-ins of ``openings.py`` are attacked towards every class in turn, without
stopping at the first success; random corners of the ball are added, and of the digits the nearest
images with values that clean ones have.  What is found counts only if the model itself, met as a
user would meet it, gets it wrong.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from members import MEMBERS, ZOO, Member
from openings import open_network
from torch import Tensor, nn

from robustbench_cli.core.atomic_files import write_bytes_atomically
from robustbench_cli.core.registry import Spec
from robustbench_cli.data import DATASETS
from robustbench_cli.models.foreign import load_foreign

TRUTH = ZOO / "truth.json"
N = 100
"""Test images, the first of the split."""
STEPS = 60
"""Gradient steps towards each class."""
CORNERS = 20
"""Random corners of the ball that each image is tried at."""
LEVELS = 16
"""The pixels of clean digits are multiples of 1/16."""
DRAWS = 100
"""Answers of a randomised model over which its accuracy is the mean."""


class Truth(NamedTuple):
    """What is true of a member on the first N test images: how often each answer is right (N)."""

    clean: list[float]
    robust: list[float]
    """Under the strongest attack that is known of; 0 or 1, but for a randomised model."""

    def accuracy(self, n: int) -> float:
        """Return the true robust accuracy on the first ``n`` images, as a share."""
        return sum(self.robust[:n]) / n


def images(member: Member, n: int = N) -> tuple[Tensor, Tensor]:
    """Return the first test images (N, C, H, W) in [0, 1] and their labels (N).

    Raises:
        FileNotFoundError: the member needs a data set that is not in ADVBENCH_DATA.
    """
    root = Path(os.environ.get("ADVBENCH_DATA", "data"))
    folder = {"mnist": root / "MNIST" / "raw", "cifar": root / "cifar10-jpeg"}
    if member.dataset in folder and not folder[member.dataset].is_dir():
        raise FileNotFoundError(f"{folder[member.dataset]}: set ADVBENCH_DATA")
    split = DATASETS.build(Spec.parse(data_text(member))).load("test", root)
    return split.images(slice(n)), split.y[:n]


def data_text(member: Member) -> str:
    """Return the text for ``--dataset``."""
    root = Path(os.environ.get("ADVBENCH_DATA", "data"))
    return f"hf:{root / 'cifar10-jpeg'}" if member.dataset == "cifar" else member.dataset


def truth_of(member: Member, n: int = N) -> Truth:
    """Attack a member and judge what is found; every random draw has a fixed seed."""
    torch.manual_seed(0)
    x, y = images(member, n)
    share = judge(member, x)
    clean = share(x, y, torch.arange(n))
    if member.options:  # what is rejected is not wrong under attack, but it is not right either
        clean *= (fresh(member)(x).argmax(1) == y).float()
    worst, kept = clean.clone(), x.clone()
    for tried in candidates(member, x, y):
        rows = (worst > 0).nonzero().squeeze(1)
        if not len(rows):
            break
        found = share(tried[rows], y[rows], rows)
        better = found < worst[rows]
        worst[rows[better]] = found[better]
        kept[rows[better]] = tried[rows[better]]
    if member.deployed == "draws":  # the smallest of many means over few draws is too small
        clean, worst = (share(images_, y, torch.arange(n), DRAWS) for images_ in (x, kept))
    return Truth(*([round(share, 2) for share in each.tolist()] for each in (clean, worst)))


def candidates(member: Member, x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Yield images (N, C, H, W) in the ball and in [0, 1], the most promising first."""
    eps = member.eps
    low, high = (x - eps).clamp_min(0), (x + eps).clamp_max(1)
    for name in member.opening:
        net = open_network(name).requires_grad_(False)
        for shift in range(1, 10):
            target = (y + shift) % 10
            moved = x.clone()
            for step in range(STEPS):
                moved.requires_grad_()
                z = net(moved)
                margin = z.gather(1, target[:, None]) - z.gather(1, y[:, None])
                (grad,) = torch.autograd.grad(margin.sum(), moved)
                size = eps / 4 if step < STEPS // 2 else eps / 16
                moved = torch.maximum(torch.minimum(moved.detach() + size * grad.sign(), high), low)
                if step in (STEPS // 4, STEPS - 1):
                    yield moved
            if member.dataset == "digits":
                yield on_clean_values(moved, low, high)
    for _ in range(CORNERS):
        yield torch.where(torch.rand_like(x) < 0.5, low, high)


def on_clean_values(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return the images with pixels that clean digits could have, between ``low`` and ``high``."""
    least, most = (LEVELS * low).ceil(), (LEVELS * high).floor()
    return torch.maximum(torch.minimum((LEVELS * x).round(), most), least) / LEVELS


Judge = Callable[..., Tensor]
"""Given images, labels and their places among all, the share of answers that are right (B)."""


def judge(member: Member, clean: Tensor) -> Judge:
    """Return the judge of a member, which meets the model as a user would."""
    return {
        "batch": together,
        "alone": one_by_one,
        "among": among_clean,
        "fresh": fresh_each,
        "draws": over_draws,
    }[member.deployed](member, clean)


def fresh(member: Member) -> nn.Module:
    """Return the model from its factory, in a module of its own, in evaluation mode."""
    return load_foreign(member.factory, None).eval().requires_grad_(False)


def right(z: Tensor, y: Tensor) -> Tensor:
    """Return 1 where the answer is right (B); one that is rejected is not wrong."""
    answer = z.argmax(1)
    return ((answer == y) | (answer >= 10)).float()


def together(member: Member, clean: Tensor) -> Judge:
    """Judge all images in one batch."""
    model = fresh(member)
    return lambda x, y, rows: right(model(x).detach(), y)


def one_by_one(member: Member, clean: Tensor) -> Judge:
    """Judge each image in a batch of its own."""
    model = fresh(member)
    return lambda x, y, rows: right(torch.cat([model(row[None]) for row in x]).detach(), y)


def among_clean(member: Member, clean: Tensor) -> Judge:
    """Judge each image in the place of the clean one, among the others."""
    model = fresh(member)

    def share(x: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        answers = []
        for image, row in zip(x, rows, strict=True):
            batch = clean.clone()
            batch[row] = image
            answers.append(model(batch)[row])
        return right(torch.stack(answers).detach(), y)

    return share


def fresh_each(member: Member, clean: Tensor) -> Judge:
    """Judge each image by a model that has seen no other."""

    def share(x: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        return right(torch.cat([fresh(member)(row[None]) for row in x]).detach(), y)

    return share


def over_draws(member: Member, clean: Tensor) -> Judge:
    """Judge each image by the mean over draws."""
    model = fresh(member)

    def share(x: Tensor, y: Tensor, rows: Tensor, draws: int = 10) -> Tensor:
        return sum(right(model(x).detach(), y) for _ in range(draws)) / draws

    return share


def known() -> dict[str, Truth]:
    """Return what ``truth.json`` holds, by the name of the member."""
    return {name: Truth(**values) for name, values in json.loads(TRUTH.read_text()).items()}


def keep(found: Mapping[str, Truth]) -> None:
    """Write what is true of some members into ``truth.json``: a line each, in the table's order."""
    merged = (known() if TRUTH.is_file() else {}) | found
    names = [each.name for each in MEMBERS if each.name in merged]
    lines = (f" {json.dumps(name)}: {json.dumps(merged[name]._asdict())}" for name in names)
    text = "{\n" + ",\n".join(lines).replace(".0,", ",").replace(".0]", "]") + "\n}\n"
    write_bytes_atomically(TRUTH, text.encode())


if __name__ == "__main__":
    torch.set_num_threads(1)
    done = known() if TRUTH.is_file() else {}
    for each in MEMBERS:
        if each.name in sys.argv[1:] or (not sys.argv[1:] and each.name not in done):
            result = truth_of(each)
            keep({each.name: result})
            print(f"{each.name} {100 * result.accuracy(N):.1f}", flush=True)
