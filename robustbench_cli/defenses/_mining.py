"""Which training image of another class a triplet is made with."""

import torch
import torch.nn.functional as F
from torch import Tensor

from robustbench_cli.core.model_modes import evaluating
from robustbench_cli.data.bank import Bank
from robustbench_cli.defenses._step import Step
from robustbench_cli.models.taps import embedding


def bank_of(step: Step) -> Bank:
    """All training images; they are there whenever an objective is trained."""
    assert step.bank is not None
    return step.bank


def most_alike(step: Step, x: Tensor, size: int) -> Tensor:
    """For each image in ``x`` the row (B) whose features, of another class, are most like its own.

    Args:
        size: how many training images are looked at; without one of another class among them any
            such image will do.
    """
    bank = bank_of(step)
    rows = bank.any(size, step.noise.seed, "mining", step.epoch, step.batch)
    with torch.no_grad(), evaluating(step.model):
        known = F.normalize(embedding(step.model, bank.images(rows).to(x)))
        alike = F.normalize(embedding(step.model, x)) @ known.T
    same = bank.labels(rows) == step.y[:, None]
    best, place = alike.masked_fill(same, float("-inf")).max(1)
    anyone = bank.other(step.y, step.noise.fork("mining"))
    return torch.where(best.isfinite(), rows[place], anyone)
