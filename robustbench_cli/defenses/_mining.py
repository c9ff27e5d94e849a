"""Mining of negatives for triplet losses: similar training images of other classes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from robustbench_cli.core.model_modes import evaluating
from robustbench_cli.data.bank import Bank
from robustbench_cli.defenses._step import Step
from robustbench_cli.models.taps import embedding


def bank_of(step: Step) -> Bank:
    """Return the bank of all training images, which every training step of an objective has."""
    assert step.bank is not None
    return step.bank


def most_similar_other_class(step: Step, x: Tensor, size: int) -> Tensor:
    """Return for each image the bank row (B) of another class with the most similar features.

    Similarity is the cosine of embeddings, computed in evaluation mode among ``size`` training
    images drawn for this batch.  Where none of them is of another class, a random image of another
    class is taken.

    Args:
        x: images (B, C, H, W) in [0, 1]; their labels are ``step.y``.
        size: number of training images that are drawn.
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
