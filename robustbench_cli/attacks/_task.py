"""The arguments of an attack's methods: its examples, its state, and the model's answers."""

from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from robustbench_cli.core import losses
from robustbench_cli.core.example_rng import Noise
from robustbench_cli.core.examples import Examples
from robustbench_cli.core.threat import Threat

State = dict[str, Tensor]
"""The memory of an attack between two steps, one row per example.

``x`` (B, C, H, W) in [0, 1] is the image to be classified next.  ``probes`` (B, Q, C, H, W), where
present, are further images that are classified without a gradient.
"""


@dataclass(frozen=True, kw_only=True)
class Task:
    """The examples that an attack works on, one row each."""

    x: Tensor
    """Clean images (B, C, H, W) in [0, 1]."""
    y: Tensor
    """The classes to leave (B) int64: the true ones; with a target 0, "not the target"."""
    clean: Tensor
    """Logits (B, K) of the clean images as the attack is shown them, in float32."""
    threat: Threat
    """The threat; with a mask, bound to these images."""
    noise: Noise
    """Random numbers keyed by example, for this attack and this restart or target only."""
    restart_or_target: int
    """The number of the restart, or of the target class, from 0."""
    data: Examples
    """The whole test split, or the examples there are, for attacks that look at other images."""
    target: Tensor | None = None
    """The classes to reach (B) int64; None: any other than ``y``.  With a target an attack is shown
    two logits, the largest one of the other classes and that of the target, so that whatever it
    does to leave class 0 of two leads to the target."""
    class_order: Tensor | None = None
    """The classes (B, K) int64 in the order in which they are to be aimed at, the true one first;
    None: by their clean logits."""
    fitted: State = field(default_factory=dict)
    """What the attack has fitted to other images before, shared by all examples: tensors by name;
    empty for attacks that fit nothing."""

    @property
    def aim(self) -> Tensor:
        """What the verifier goes by (B): the target class where there is one, else the true one."""
        return self.y if self.target is None else self.target

    def cross_entropy(self, out: "Output") -> Tensor:
        """Return the cross-entropy to climb (B): of ``y``, or minus that of the target.

        With a target it is over all classes, as papers have it: unlike that of two logits, its
        gradient does not vanish where the target is unlikely.
        """
        if self.target is None:
            return losses.cross_entropy(out.logits, self.y)
        return -losses.cross_entropy(out.every_logit, self.target)

    def dlr(self, out: "Output") -> Tensor:
        """Return the difference of logits ratio to climb (B): away from ``y``, or to the target."""
        if self.target is None:
            return losses.dlr(out.logits, self.y)
        return losses.dlr_towards(out.every_logit, self.target)

    def only(self, rows: Tensor) -> "Task":
        """Return the task of these rows: positions (B, int64) or a mask (B, bool)."""
        return replace(
            self,
            x=self.x[rows],
            y=self.y[rows],
            clean=self.clean[rows],
            threat=self.threat.only(rows),
            noise=self.noise.only(rows),
            target=None if self.target is None else self.target[rows],
            class_order=None if self.class_order is None else self.class_order[rows],
        )

    def joined(self, other: "Task") -> "Task":
        """Return the task of these rows, followed by those of ``other``."""
        return replace(
            self,
            x=torch.cat([self.x, other.x]),
            y=torch.cat([self.y, other.y]),
            clean=torch.cat([self.clean, other.clean]),
            threat=self.threat.joined(other.threat),
            noise=replace(self.noise, ids=torch.cat([self.noise.ids, other.noise.ids])),
            target=_joined(self.target, other.target),
            class_order=_joined(self.class_order, other.class_order),
        )

    def ranked(self, rank: int) -> Tensor:
        """Return the classes (B) with the ``rank``-th largest clean logit; 1: the predicted one.

        With a ``class_order`` it decides instead.
        """
        if self.class_order is not None:
            return self.class_order[:, rank - 1]
        return self.clean.argsort(dim=1, descending=True, stable=True)[:, rank - 1]


def _joined(ours: Tensor | None, theirs: Tensor | None) -> Tensor | None:
    return None if ours is None or theirs is None else torch.cat([ours, theirs])


class Output(NamedTuple):
    """The model's answer to images."""

    logits: Tensor
    """(B, K), in float32 or wider; with a target (B, 2), see ``Task.target``."""
    features: Tensor | None
    """(B, F): the input of the last layer; None unless the attack ``taps`` it."""
    all_logits: Tensor | None = None
    """With a target: those of all classes (B, K), in float32 or wider."""

    @property
    def every_logit(self) -> Tensor:
        """Those of all classes (B, K), with or without a target."""
        return self.logits if self.all_logits is None else self.all_logits


class Observation(NamedTuple):
    """The result of a pass of the model over ``state["x"]``, in float32 or wider."""

    logits: Tensor
    """(B, K); averaged over the draws for a randomised model."""
    loss: Tensor
    """(B); the attack's loss, or the margin if its ``access`` is ``logits``."""
    grad: Tensor
    """(B, C, H, W), of the loss by ``x``; for ``access = "jacobian"`` (B, M, C, H, W), of each
    logit that is ``wanted``."""
    probes: Tensor
    """(B, Q, K); logits of the probes."""
    features: Tensor
    """(B, F); the input of the last layer.  NaN, (B), unless the attack ``taps`` it."""
    step_index: Tensor
    """The number of passes that each example has had before this one (B, int64)."""

    @property
    def decisions(self) -> "Observation":
        """All that an attack with ``access = "decision"`` is shown: 1 for the predicted class.

        Its ``logits`` (B, K) are 0 for all other classes; loss, gradients and features are NaN.
        """
        largest = self.logits.argmax(-1, keepdim=True)
        decided = torch.zeros_like(self.logits).scatter(-1, largest, 1)
        unknown = torch.full_like(self.logits[:, 0], torch.nan)
        return Observation(decided, unknown, unknown, unknown, unknown, self.step_index)


Access = Literal["gradient", "logits", "decision", "jacobian"]
"""The knowledge of the model that an attack gets at each step: the gradient of its loss, the logits
alone (a score-based attack), the predicted class alone (a decision-based one), or the gradients of
several logits."""
