"""A stage on a fast model, and once more on the model itself where it decided by a little."""

from collections.abc import Iterator
from dataclasses import fields, replace

import numpy as np
import torch
from torch import Tensor

from robustbench_cli.attacks import Stage
from robustbench_cli.evaluation.active_batch import StageResult
from robustbench_cli.evaluation.attack_loop import run_stage
from robustbench_cli.evaluation.eval_context import EvalContext
from robustbench_cli.evaluation.search_model import SearchModel


def run_and_repeat(
    stage: Stage,
    rows: Tensor,
    arrays: dict[str, np.ndarray],
    context: EvalContext,
    exact: SearchModel,
) -> Iterator[StageResult]:
    """Run a stage on the search model; repeat it exactly for examples that stood by a little.

    The first attempt's passes are added to the costs of those examples, ``forwards`` and
    ``backwards`` (N) among ``arrays``.
    """
    search_model = exact if stage.attack.needs_float32 else context.search_model
    # With a randomised model, a second attempt would not settle what its noise leaves open.
    uncertain = 0.0 if context.verifier.random else search_model.uncertain_margin
    context.data.expect(rows)
    repeated: list[tuple[Tensor, ...]] = []  # positions and costs; no images, which take memory
    for result in run_stage(stage, rows, replace(context, search_model=search_model)):
        close = ~result.broken & (result.margin > -uncertain) & bool(uncertain)
        if close.any():
            repeated.append((result.rows[close], result.forwards[close], result.backwards[close]))
            result = _rows_of(result, ~close)
        yield result
    if repeated:
        again, forwards, backwards = map(torch.cat, zip(*repeated, strict=True))
        arrays["forwards"][again.numpy()] += forwards.numpy()
        arrays["backwards"][again.numpy()] += backwards.numpy()
        yield from run_stage(stage, again.to(rows.device), replace(context, search_model=exact))


def _rows_of(result: StageResult, rows: Tensor) -> StageResult:
    return StageResult(**{f.name: getattr(result, f.name)[rows] for f in fields(result)})
