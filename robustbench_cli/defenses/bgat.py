"""Boundary guided adversarial training (Cui et al., 2021), https://arxiv.org/abs/2011.11164."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from robustbench_cli.core.gradient_ascent import StepSize
from robustbench_cli.core.model_modes import Mode
from robustbench_cli.defenses import DEFENSES
from robustbench_cli.defenses._distillation import Distilled, answer
from robustbench_cli.defenses._guidance import apart
from robustbench_cli.defenses._step import Passes, Step
from robustbench_cli.defenses.pgd_at import PGDAT


@DEFENSES.register("bgat")
@dataclass(frozen=True, kw_only=True)
class BGAT(Distilled, PGDAT):
    """Follow, on attacked images, a natural teacher's (``--teacher RUN``) logits on clean ones.

    The squared difference is averaged over the classes.  Labels are for the attack alone.  No code
    was released: start and mode of the attack (uniform, eval) are recalled.  The authors' teacher
    was an ensemble of two nets.  ``lbgat`` trains that net, too.
    """

    step: StepSize = 7 / 31
    attack_mode: Mode = "eval"

    def crafted(self, step: Step) -> Mapping[str, Tensor]:
        return {"adv": self.perturb(step), "taught": answer(step.teachers[0], step.x)}

    def loss(self, step: Step, logits: Passes) -> Tensor:
        return apart(logits["adv"], logits.inputs["taught"])
