"""Guided complement entropy (Chen et al., 2019), https://arxiv.org/abs/1903.09799."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from robustbench_cli.core.gradient_ascent import ascend
from robustbench_cli.core.losses import coded_complement_entropy, guided_complement_entropy
from robustbench_cli.core.registry import Number
from robustbench_cli.defenses import DEFENSES, Adversarial
from robustbench_cli.defenses._complement import check_wrong_classes
from robustbench_cli.defenses._own_loss import OwnLoss
from robustbench_cli.defenses._step import Passes, Setting, Step


@DEFENSES.register("gce")
@dataclass(frozen=True, kw_only=True)
class GCE(OwnLoss):
    """Maximise the entropy over the wrong classes, weighted by the true class's probability.

    Per image -p^alpha H / log(classes - 1), with p the probability of the true class and H the
    entropy of the softmax over the others; the code divides by log(classes).  Trained on clean
    images.

    The gradient vanishes where p is 0 or 1, which stops gradient attacks without removing
    adversarial examples: clean training with it does not make a network robust.  Evaluate it with
    other losses than its own (``climbs=gce``), margin and targeted ones among them.
    """

    alpha: Annotated[Number, Field(ge=0)] = 1 / 3
    """Exponent of the true class's probability; 0 leaves the entropy unweighted."""
    variant: Literal["paper", "code", "code-rounding"] = "paper"
    """The entropy is divided by log(classes - 1) (paper) or by log(classes) (code); code-rounding
    adds to probabilities what the code adds, too, which ends the learning of sure classes."""

    one_label: ClassVar[bool] = True

    def auxiliary(self, setting: Setting) -> nn.Module | None:
        # No auxiliary module is needed; the number of classes is first known here.
        check_wrong_classes(DEFENSES.name_of(self), setting.shape.classes)
        return None

    def score(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the loss (B), between -1 and 0, of logits (B, C) and labels (B)."""
        if self.variant == "code-rounding":
            return coded_complement_entropy(logits, y, self.alpha)
        score = guided_complement_entropy(logits, y, self.alpha)
        classes = logits.shape[1]
        return score * math.log(classes - 1) / math.log(classes - (self.variant == "paper"))

    def loss(self, step: Step, logits: Passes) -> Tensor:
        return self.score(logits["clean"], step.y)


@DEFENSES.register("gce-at")
@dataclass(frozen=True, kw_only=True)
class GCEAT(GCE, Adversarial):
    """Guided complement entropy on the inputs that maximise it.

    The official README says no more than that; steps and start are those of ``pgd-at``, in eval
    mode.
    """

    def perturb(self, step: Step) -> Tensor:
        return ascend(step.model, self.score, step.y, step.x, step.threat, step.noise, self.climb)

    def loss(self, step: Step, logits: Passes) -> Tensor:
        return self.score(logits["adv"], step.y)
