"""Clean and robust accuracy of a model in training, as the history of a run records them."""

import torch

from robustbench_cli import masks
from robustbench_cli.attacks.pgd import PGD
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.model_modes import evaluating
from robustbench_cli.core.threat import Threat
from robustbench_cli.data import Split
from robustbench_cli.distributed.group import ALONE, Shard
from robustbench_cli.evaluation.batch_attack import attack_batch
from robustbench_cli.masks import MaskContext
from robustbench_cli.models import Classifier

PROBE = PGD(steps=10, step=0.25)
"""The attack behind the robust accuracies of a history: PGD-10, any iterate."""


def accuracies(
    model: Classifier,
    split: Split,
    threat: Threat,
    seed: int,
    batch_size: int = 512,
    shard: Shard = ALONE,
) -> tuple[float, float]:
    """Return the clean and the PGD-10 accuracy, measured in evaluation mode and float32.

    Images that are misclassified clean are not attacked.  Each process measures its own part.

    Raises:
        UserError: the model's logits are not finite.
    """
    own_rows = torch.arange(len(split), device=split.y.device)[shard.rows]
    right = torch.zeros(2, dtype=torch.long, device=split.y.device)  # clean, under attack
    split.expect(own_rows)
    low_precision, model.low_precision = model.low_precision, False
    with evaluating(model):
        for rows in torch.split(own_rows, batch_size) if len(own_rows) else ():
            x, y = split.images(rows), split.y[rows]
            with torch.no_grad():
                clean = model(x).argmax(1) == y
            noise = Noise(seed, rows[clean], "measure")
            context = MaskContext(model=model, x=x[clean], y=y[clean])
            bound = masks.bind_to_images(threat, context)
            attacked = attack_batch(model, x[clean], y[clean], PROBE, bound, noise)
            right += torch.stack([clean.sum(), (~attacked.broken).sum().to(clean.device)])
    model.low_precision = low_precision
    shard.all_reduce_sum_([right])
    clean_total, robust_total = right.tolist()
    return clean_total / len(split), robust_total / len(split)
