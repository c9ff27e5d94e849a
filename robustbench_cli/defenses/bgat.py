"""Boundary guided adversarial training (Cui et al., 2021), https://arxiv.org/abs/2011.11164."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from robustbench_cli.core.gradient_ascent import StepSize
from robustbench_cli.core.model_modes import Mode
from robustbench_cli.defenses import DEFENSES
from robustbench_cli.defenses._distillation import Distilled, teacher_logits
from robustbench_cli.defenses._guidance import mean_squared_gap
from robustbench_cli.defenses._step import Passes, Step
from robustbench_cli.defenses.pgd_at import PGDAT


@DEFENSES.register("bgat")
@dataclass(frozen=True, kw_only=True)
class BGAT(Distilled, PGDAT):
    """Fit the logits on adversarial images to a frozen natural teacher's logits on clean images.

    The loss is mean_c (f(x_adv) - teacher(x))^2; labels serve the attack, PGD on cross-entropy,
    alone. The teacher is a finished run: ``--teacher RUN``; the authors used an ensemble of two
    networks.  No code was released: start and mode of the attack (uniform, eval) are recalled, not
    verified.  ``lbgat`` trains the natural network, too.
    """

    step: StepSize = 7 / 31
    attack_mode: Mode = "eval"

    def crafted(self, step: Step) -> Mapping[str, Tensor]:
        return {"adv": self.perturb(step), "taught": teacher_logits(step.teachers[0], step.x)}

    def loss(self, step: Step, logits: Passes) -> Tensor:
        return mean_squared_gap(logits["adv"], logits.inputs["taught"])
