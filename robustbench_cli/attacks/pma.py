"""Probability margin attack, PMA (Xie et al., 2024), https://arxiv.org/abs/2411.15210."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_cli.attacks import ATTACKS, State, Task
from robustbench_cli.attacks._decomposition import MarginDecomposition, MarginTerms
from robustbench_cli.core import losses
from robustbench_cli.core.gradient_ascent import Steps, StepSize


@ATTACKS.register("pma", pattern=r"pma-?(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class PMA(MarginDecomposition):
    """Margin decomposition on probabilities: softmax(logits) takes the place of the logits.

    Two rounds of 100 steps; the step size falls from 2 eps to 0 along a cosine, once for the single
    terms and once for the margin p_max - p_y, as in the authors' code.

    A step follows the direction of the gradient only, so what is climbed here are functions whose
    gradients point the same way as those of the probabilities and do not vanish where the softmax
    saturates (in float32 it does so at a gap of about 100 logits).
    """

    steps: Steps = 100
    """Gradient steps of each round."""
    step: StepSize = 2.0
    """Size of the first step of either half, as a fraction of eps."""

    def terms(self, logits: Tensor, state: State, task: Task) -> MarginTerms:
        z = losses.wide(logits)
        others = z.scatter(1, task.y[:, None], -torch.inf)
        # p_y = sigmoid(-odds), and its gradient is that of -odds but for a positive factor.
        odds = torch.logsumexp(others, 1) - losses.picked(z, task.y)
        # The probability of the rival among the wrong classes, r: p_max = sigmoid(odds) r.
        share = torch.log_softmax(others, 1).amax(1)
        log_rival = torch.nn.functional.logsigmoid(odds) + share
        # grad(p_max - p_y) = sigmoid(odds) (grad r + (1 + r) sigmoid(-odds) grad odds), and the
        # first factor is left out.
        r = share.exp()
        weight = ((1 + r) * torch.sigmoid(-odds)).detach()
        return MarginTerms(-odds, odds, log_rival, r + weight * odds)

    def step_sizes(self, step_index: Tensor) -> Tensor:
        start = torch.where(step_index > self.change_point, self.change_point, 0.0)
        period = max(1.0, self.steps - self.change_point)
        return self.stride * 0.5 * (1 + torch.cos(math.pi * (step_index - start - 1) / period))
