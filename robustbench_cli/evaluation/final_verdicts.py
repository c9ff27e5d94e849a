"""The verdicts on what an attack ended with: the stored image, judged by the verifier."""

from dataclasses import replace

import torch
from torch import Tensor

from robustbench_cli.attacks import Attack, Task
from robustbench_cli.evaluation.active_batch import StageResult
from robustbench_cli.evaluation.verifier import Verifier

_OUTWARD = (1e-6, 1e-5, 1e-4, 1e-3)
"""The shares by which an image on the boundary is moved outward, until it is misclassified."""


def judge_best_images(
    attack: Attack, x: Tensor, usable: Tensor, rows: Tensor, task: Task, verifier: Verifier
) -> StageResult:
    """Return the verdicts on the best images that an attack found.

    Args:
        x: the images (B, C, H, W); those outside the ball are brought back to it, unless the
            attack is minimal.
        usable: whether the attack found any image at all for the example (B, bool); only minimal
            attacks may not.
        rows: the examples' positions in the data (B).
    """
    threat, noise = task.threat, task.noise.fork("verdict")
    if not attack.minimal:
        x = threat.stored(x, task.x)
        verdict = verifier.verdict(x, task.x, task.aim, threat, noise=noise)
        return StageResult.judged(rows, x, threat.distance(x, task.x), verdict)
    x, passes = _moved_outward(x, usable, task, verifier)
    verdict = verifier.verdict(x, task.x, task.aim, threat, bounded=False, noise=noise)
    broken = verdict.broken & usable
    norm = torch.where(broken, threat.distance(x, task.x), torch.inf)
    result = StageResult.judged(rows, x, norm, verdict._replace(broken=broken, margin=-norm))
    return replace(result, forwards=result.forwards + passes.cpu())


def _moved_outward(
    x: Tensor, usable: Tensor, task: Task, verifier: Verifier
) -> tuple[Tensor, Tensor]:
    """Move images away from the clean ones, a little more each time, until they are a success.

    A nearest adversarial image lies on the boundary, where a pass at another batch size may round
    it back to the true class.

    Returns:
        The images (B, C, H, W), and how often the verifier's model was asked about each (B).
    """
    x, passes = x.clone(), torch.zeros_like(task.y)
    pending = usable.nonzero().squeeze(1)
    for share in _OUTWARD:
        if not len(pending):
            break
        passes[pending] += 1
        noise = task.noise.only(pending).fork(f"outward {share}")
        logits = verifier.attacked_logits(x[pending], task.aim[pending], noise)
        pending = pending[logits.argmax(1) == task.y[pending]]
        further = task.x[pending] + (1 + share) * (x[pending] - task.x[pending])
        x[pending] = further.clamp(0, 1)
    return x, passes
