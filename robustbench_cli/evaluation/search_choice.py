"""Which of the models that an attack may work on is the fastest here: they are timed."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from robustbench_cli.attacks import Stage
from robustbench_cli.core.examples import Examples
from robustbench_cli.evaluation.rewritten_models import (
    COMPARED_IMAGES,
    bfloat16_search_model,
    rewritten_search_model,
    row_major_search_model,
    top_logit_gradient,
)
from robustbench_cli.evaluation.search_model import SearchModel, exact_search_model
from robustbench_cli.evaluation.verifier import device_of
from robustbench_cli.models import has_bf16, runs_bf16

TRIAL_PAYS = 1500
"""Passes of full batches, forward or backward, from which on a trial is made: it takes about fifty,
so that a trial that finds nothing faster costs at most one in thirty."""
_ROUNDS = 3
_HOPELESS = 1.5
"""A model that took so many times as long as the fastest in the first round runs no second one."""
_WORTH = 0.95
"""The part of the model's own time that another one may take: a smaller gain is not worth the
images that are attacked again because they stood by a small margin."""


@dataclass(frozen=True, kw_only=True)
class PassesAhead:
    """What a search model is chosen for."""

    batch: int
    """Images in a batch."""
    passes: float
    """Passes of full batches that are still to come at most, forward and backward."""

    @classmethod
    def of(cls, stages: Sequence[Stage], images: int, slots: int) -> "PassesAhead":
        """Return what these stages need at most on so many images, ``slots`` of them at a time."""
        batch = max(1, min(images, slots))
        each = sum(stage.attack.planned_passes for stage in stages)
        return cls(batch=batch, passes=each * math.ceil(images / batch))


def chosen_search_model(
    model: nn.Module,
    data: Examples,
    ahead: PassesAhead,
    *,
    random: bool = False,
    before: str = "",
) -> tuple[SearchModel, list[str]]:
    """Return the fastest model whose answers are close to the evaluated one's.

    It is the model itself where the search is too short for a trial, unless the hardware is made
    for bfloat16, or where nothing is faster.

    Args:
        data: images in [0, 1] on which models are compared and timed, the first ones.
        ahead: what it is chosen for.
        random: whether the model is randomised: then it is used as it is.
        before: how an interrupted evaluation was searched, as its record has it: that goes on.

    Returns:
        The search model, whose ``about`` says what was chosen and why, and notes on what could not
        be made faster.
    """
    exact, device = exact_search_model(model), device_of(model)
    named = before.partition(":")[0]
    if random or not len(data.y) or named == exact.about:
        return replace(exact, about=before or exact.about), []
    x = data.images(slice(COMPARED_IMAGES))
    tried = ahead.passes >= TRIAL_PAYS
    if not before and not tried:
        return rewritten_search_model(model, x) if has_bf16(device) else (exact, [])
    rewritten, notes = rewritten_search_model(model, x)
    found = {each.about: each for each in (exact, rewritten)}
    own = rewritten if rewritten.about.startswith("float32") else exact
    if device.type == "cpu" and any(isinstance(m, nn.Conv2d) for m in model.modules()):
        laid = row_major_search_model(model, own, x)
        found |= {laid.about: laid} if laid else {}
    if runs_bf16(device) and not has_bf16(device):
        narrow, why = bfloat16_search_model(model, own, x)
        found, notes = found | ({narrow.about: narrow} if narrow else {}), notes + why
    if named in found:
        return replace(found[named], about=before), notes
    if not tried:
        return exact, notes
    return _fastest([*found.values()], _batch(data, ahead.batch)), notes


def _batch(data: Examples, size: int) -> Tensor:
    """Return so many images (B, C, H, W), the first ones, again and again if there are fewer."""
    x = data.images(slice(size))
    return x.repeat(math.ceil(size / len(x)), 1, 1, 1)[:size]


def _fastest(candidates: Sequence[SearchModel], x: Tensor) -> SearchModel:
    """Return the candidate with the shortest pass; the first one is the model itself."""
    best = [math.inf] * len(candidates)
    for turn in range(_ROUNDS):
        for place, each in enumerate(candidates):
            if turn == 0 or best[place] <= _HOPELESS * min(best):
                best[place] = min(best[place], _seconds(each, x))
    own = best[0]
    place = min(range(len(best)), key=best.__getitem__)
    if best[place] > _WORTH * own:
        said = f": the fastest of {len(candidates)}" if len(candidates) > 1 else ""
        return replace(candidates[0], about=candidates[0].about + said)
    times = f"{own / best[place]:.2f} times as fast as itself"
    return replace(candidates[place], about=f"{candidates[place].about}: {times}")


def _seconds(search: SearchModel, x: Tensor) -> float:
    """Return the seconds of a forward and a backward pass."""
    assert isinstance(search.model, nn.Module)
    _finish(x.device)
    began = time.perf_counter()
    top_logit_gradient(search.model, x)
    _finish(x.device)
    return time.perf_counter() - began


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
