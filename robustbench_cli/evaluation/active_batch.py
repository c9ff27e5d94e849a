"""The slots of the engine, and what leaves them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_cli.attacks import State, Task
from robustbench_cli.evaluation.verifier import Verdict


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """What a stage found for examples that are done with it; each tensor (B), on the CPU."""

    rows: Tensor
    """Which examples of the data these are."""
    broken: Tensor
    """Whether the judge confirmed a success."""
    x: Tensor
    """(B, C, H, W): the adversarial image, else the one that came closest to being wrong."""
    prediction: Tensor
    share: Tensor
    margin: Tensor
    """Largest wrong logit minus the true one at ``x``; of minimal attacks, minus the norm."""
    norm: Tensor
    """How far ``x`` is from the clean image; infinite where a minimal attack found nothing."""
    step: Tensor
    """Looks before the first success (gradient steps taken); -1: never."""
    forwards: Tensor
    backwards: Tensor
    zero_gradient_at_start: Tensor
    """Whether the attack found nothing to climb where it began."""
    diagnostics: Tensor
    """(B, T): what the attack has to tell at its end; of most, nothing."""

    @classmethod
    def judged(cls, rows: Tensor, x: Tensor, norm: Tensor, verdict: Verdict) -> "StageResult":
        """What is known of images (B, C, H, W) that no search has looked at, only the judge."""
        none = torch.zeros_like(rows).cpu()
        return cls(
            rows=rows.cpu(),
            broken=verdict.broken.cpu(),
            x=x.cpu(),
            prediction=verdict.prediction.cpu(),
            share=verdict.share.cpu(),
            margin=verdict.margin.float().cpu(),
            norm=norm.float().cpu(),
            step=none - 1,
            forwards=none + verdict.forwards,
            backwards=none,
            zero_gradient_at_start=none.bool(),
            diagnostics=verdict.margin.new_zeros(len(rows), 0).cpu(),
        )


@dataclass(frozen=True)
class ActiveBatch:
    """The slots: one row per example under attack."""

    task: Task
    state: State
    rows: Tensor
    step_index: Tensor
    """Looks so far."""
    alive: Tensor
    """False once a row has had its last look."""
    here: Tensor
    """False once a row has been reported and only fills the batch."""
    best_score: Tensor
    """How good the best image so far is (see ``_score``)."""
    best_x: Tensor
    best_step: Tensor
    tried: Tensor
    """How good the best image was that the judge has refused."""
    forwards: Tensor
    backwards: Tensor

    def only(self, rows: Tensor) -> "ActiveBatch":
        """Some of the rows."""
        rest = {name: getattr(self, name)[rows] for name in _COLUMNS}
        state = {name: values[rows] for name, values in self.state.items()}
        return ActiveBatch(self.task.only(rows), state, **rest)

    def joined(self, other: "ActiveBatch") -> "ActiveBatch":
        """These rows, then those."""
        rest = {n: torch.cat([getattr(self, n), getattr(other, n)]) for n in _COLUMNS}
        state = {n: torch.cat([values, other.state[n]]) for n, values in self.state.items()}
        return ActiveBatch(self.task.joined(other.task), state, **rest)


_COLUMNS = (
    "rows",
    "step_index",
    "alive",
    "here",
    "best_score",
    "best_x",
    "best_step",
    "tried",
    "forwards",
    "backwards",
)
