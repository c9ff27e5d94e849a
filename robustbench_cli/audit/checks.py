"""Signs that an evaluation overestimates robustness, as AutoAttack's official flags name them.

Croce & Hein (2020, https://arxiv.org/abs/2003.01690): their code warns of randomised models,
probabilities instead of logits, optimisation at test time, zero gradients of the logit ratio, and a
black-box attack that breaks what the white-box ones did not.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_cli.attacks import Stage
from robustbench_cli.core.gradient_ascent import gradient
from robustbench_cli.core.losses import dlr
from robustbench_cli.evaluation.out_of_memory import in_parts
from robustbench_cli.evaluation.stages import AttackVerdicts
from robustbench_cli.evaluation.verifier import unchanged_model

RANDOM = 1e-4
"""The largest L2 distance between the normalised logits of two passes of one model."""
BEATEN = 0.002
"""The fraction of the examples that a black-box attack may break after the white-box ones."""


def before(model: nn.Module, x: Tensor, y: Tensor, random: bool | None = None) -> list[str]:
    """Return warnings about a model, from a batch of clean images.

    Args:
        x: images (B, C, H, W) in [0, 1].
        y: labels (B).
        random: whether it is ``randomised``; None: find out.
    """
    notes = []
    with unchanged_model(model):
        if randomised(model, x) if random is None else random:
            notes.append(
                "the model is randomised: use --eot 20 or autoattack:version=rand; accuracies are "
                "means over fresh draws"
            )
        with torch.no_grad(), _counting() as calls:
            logits = in_parts(model, x)
        if calls:
            notes.append(
                "the model computes gradients in its forward pass (a dynamic defense): AutoAttack "
                "may be too weak, an adaptive attack is needed"
            )
        sums = (logits.sum(1) - 1).abs()
        if logits.max() < 1 + 1e-5 and logits.min() > -1e-5 and (sums < 1e-5).all():
            notes.append("the model's outputs look like probabilities: it must return logits")
        if logits.shape[1] >= 3:
            right = (logits.argmax(1) == y).nonzero().squeeze(1)  # the others are not attacked
            grad = in_parts(lambda rows: gradient(model, dlr, y[rows], x[rows])[1], right)
            zero = int((~grad.flatten(1).any(1)).sum())
            if zero:
                notes.append(
                    f"{zero} of {len(right)} images have a zero gradient of the logit ratio: "
                    "gradient attacks may be unreliable"
                )
    return notes


def after(stages: list[Stage], column: AttackVerdicts, n: int) -> list[str]:
    """Return warnings about the verdicts of an attack on ``n`` examples.

    Args:
        stages: the attack's, in the order in which they ran.
        column: its verdicts.
    """
    notes = []
    flat, tried = (int((column.arrays[key] > 0).sum()) for key in ("flat", "stages"))
    if flat:
        notes.append(
            f"{flat} of {tried} examples have a zero gradient of the logit ratio at a random "
            "start: gradient attacks may be unreliable"
        )
    black_box = [i for i, stage in enumerate(stages) if stage.attack.access == "logits"]
    any_white_box = len(black_box) < len(stages)
    extra = int(np.isin(column.arrays["by"], black_box).sum())
    if any_white_box and black_box and extra > BEATEN * n:
        notes.append(
            f"the black-box attack broke {extra} of {n} examples that gradients had missed: the "
            "evaluation may be unreliable; try more queries and restarts, or an adaptive attack"
        )
    return notes


def randomised(model: nn.Module, x: Tensor) -> bool:
    """Return whether the model's logits differ from pass to pass, on images (B, C, H, W)."""
    with torch.no_grad():
        answers = [in_parts(model, x) for _ in range(5)]
    units = [answer / (answer.norm(dim=1, keepdim=True) + 1e-10) for answer in answers]
    labels = [answer.argmax(1) for answer in answers]
    apart = max(float((units[0] - unit).norm(dim=1).max()) for unit in units[1:])
    return apart > RANDOM or any(not torch.equal(labels[0], label) for label in labels[1:])


@contextmanager
def _counting() -> Iterator[list[int]]:
    """Give a list that grows by one for every run of autograd while the context is open."""
    calls: list[int] = []
    # ``torch.autograd.grad`` and ``Tensor.backward`` both end there, however they were imported.
    engine = "_engine_run_backward"
    run = getattr(torch.autograd, engine)

    def counted(*args: Any, **options: Any) -> Any:
        calls.append(1)
        return run(*args, **options)

    with mock.patch.object(torch.autograd, engine, counted):
        yield calls
