"""Averaged weights (Polyak & Juditsky, 1992), https://doi.org/10.1137/0330046, as in the code of
adversarial logit pairing (Kannan et al., 2018), https://arxiv.org/abs/1803.06373."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from robustbench_cli.core.registry import Number
from robustbench_cli.defenses import DEFENSES, Modifier
from robustbench_cli.defenses._step import Setting, Step
from robustbench_cli.models import Classifier


@DEFENSES.register("ema")
@dataclass(frozen=True, kw_only=True)
class EMA(Modifier):
    """Evaluate, select and save an exponential moving average of the weights.

    Training itself continues with the current weights.  BatchNorm's running statistics are averaged
    like the weights.  After n updates the decay is at most (1 + n) / (10 + n), as in TensorFlow,
    which the official code of logit pairing uses: this way a short run forgets its initial weights.
    """

    decay: Annotated[Number, Field(ge=0, lt=1)] = 0.9999
    """Weight of the old average in every update."""

    def auxiliary(self, setting: Setting) -> nn.Module:
        return Average(setting.model)

    def after_optimizer_step(self, step: Step) -> None:
        step.auxiliary(self, Average).update(step.model, self.decay)

    @contextmanager
    def swap_in_eval_weights(self, model: Classifier, auxiliary: nn.Module) -> Iterator[None]:
        assert isinstance(auxiliary, Average)
        own = {name: value.clone() for name, value in model.state_dict().items()}
        model.load_state_dict(auxiliary.model.state_dict())
        try:
            yield
        finally:
            model.load_state_dict(own)


class Average(nn.Module):
    """An exponential moving average of a model, kept as a copy of it."""

    updates: Tensor

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def update(self, model: Classifier, decay: float) -> None:
        """Update the average with the model's current weights and buffers.

        Everything stays on the device; the host does not wait for it.

        Args:
            decay: upper bound of the weight of the old average.
        """
        share = (9 / (10 + self.updates)).clamp_min(1 - decay)  # 1 - (1 + n) / (10 + n)
        self.updates += 1
        copies, tensors = ((*net.parameters(), *net.buffers()) for net in (self.model, model))
        for average, value in zip(copies, tensors, strict=True):
            if average.is_floating_point():
                average.lerp_(value, share.to(average))
            else:
                average.copy_(value)  # BatchNorm's int64 count of batches
