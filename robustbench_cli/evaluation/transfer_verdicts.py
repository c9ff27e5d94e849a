"""The verdicts of another model than the one that images were crafted on."""

from dataclasses import replace

import torch

from robustbench_cli.evaluation.active_batch import StageResult
from robustbench_cli.evaluation.eval_context import EvalContext


def judged_by_target(result: StageResult, context: EvalContext, minimal: bool) -> StageResult:
    """Return the results with the target's verdicts on images that were crafted on another model.

    Args:
        result: of the model that the attack worked on.
        context: with the target.
        minimal: whether the attack looks for the nearest adversarial image.
    """
    assert context.target is not None
    rows = result.rows.to(context.data.y.device)
    x, aims = context.data.images(rows), context.aims(rows)
    threat, x_adv = context.threat.only(rows), result.x.to(x)
    noise = context.noise.only(rows).fork("verdict on another model's images")
    verdict = context.target.verdict(x_adv, x, aims, threat, bounded=not minimal, noise=noise)
    judged = StageResult.judged(rows, x_adv, threat.distance(x_adv, x), verdict)
    if minimal:
        # The nearest image that the target gets wrong counts, not the nearest that the source does.
        norm = torch.where(judged.broken, judged.norm, torch.inf)
        result = replace(result, norm=norm, margin=-norm)
    return replace(
        result,
        broken=judged.broken,
        prediction=judged.prediction,
        share=judged.share,
        step=judged.step,
        forwards=result.forwards + judged.forwards,
    )
