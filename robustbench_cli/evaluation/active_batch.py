"""The examples under attack, one row each, and the results of those that have left."""

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_cli.attacks import State, Task
from robustbench_cli.evaluation.verifier import Verdict


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """The results of a stage for examples that are done with it; tensors (B), on the CPU."""

    rows: Tensor
    """The examples' positions in the data (B, int64)."""
    broken: Tensor
    """True if the verifier confirmed a success (bool)."""
    x: Tensor
    """Images (B, C, H, W) in [0, 1]: the adversarial one, else the one with the highest score."""
    prediction: Tensor
    """The class that the verifier predicts at ``x``."""
    share: Tensor
    """The fraction of draws that are classified right: 0 or 1, except for a randomised model."""
    margin: Tensor
    """Largest wrong logit minus the true one at ``x``; of a minimal attack, minus the norm."""
    norm: Tensor
    """The distance of ``x`` from the clean image; infinite where a minimal attack found nothing."""
    step: Tensor
    """The number of steps before the first success (0: the start); -1: there was none."""
    forwards: Tensor
    """Forward passes that the example cost, the verifier's included."""
    backwards: Tensor
    """Backward passes that the example cost."""
    zero_gradient_at_start: Tensor
    """True if the attack says that its loss had no gradient where it began (bool)."""
    diagnostics: Tensor
    """The attack's report on each example at its end, (B, T); of most attacks T is 0."""

    @classmethod
    def judged(cls, rows: Tensor, x: Tensor, norm: Tensor, verdict: Verdict) -> "StageResult":
        """Return the result for images that only the verifier has seen, no attack.

        Args:
            rows: positions in the data (B).
            x: the images (B, C, H, W).
            norm: their distances from the clean images (B).
        """
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
    """The slots of the attack loop: one row per example under attack; tensors (B)."""

    task: Task
    state: State
    rows: Tensor
    """The examples' positions in the data."""
    step_index: Tensor
    """The number of passes that each row has had."""
    alive: Tensor
    """False once a row has had its last pass."""
    unreported: Tensor
    """False once a row's result was reported, so that it only fills the batch."""
    best_score: Tensor
    """The score of the best image so far, minus infinity before the first one."""
    best_x: Tensor
    """The best image so far (B, C, H, W)."""
    best_step: Tensor
    """The ``step_index`` of the success that is claimed; -1: there is none."""
    refused_score: Tensor
    """The score of the best image that a randomised model's verifier has refused, else 0."""
    forwards: Tensor
    """Forward passes so far."""
    backwards: Tensor
    """Backward passes so far."""

    def only(self, rows: Tensor) -> "ActiveBatch":
        """Return the rows at these positions (B, int64) or under this mask (B, bool)."""
        rest = {name: getattr(self, name)[rows] for name in _COLUMNS}
        state = {name: values[rows] for name, values in self.state.items()}
        return ActiveBatch(self.task.only(rows), state, **rest)

    def joined(self, other: "ActiveBatch") -> "ActiveBatch":
        """Return these rows, followed by those of ``other``."""
        rest = {n: torch.cat([getattr(self, n), getattr(other, n)]) for n in _COLUMNS}
        state = {n: torch.cat([values, other.state[n]]) for n, values in self.state.items()}
        return ActiveBatch(self.task.joined(other.task), state, **rest)


_COLUMNS = (
    "rows",
    "step_index",
    "alive",
    "unreported",
    "best_score",
    "best_x",
    "best_step",
    "refused_score",
    "forwards",
    "backwards",
)
"""The fields of an ``ActiveBatch`` that are plain tensors."""
