"""MART (Wang et al., 2020), https://openreview.net/forum?id=rklOg6EFwS, equation 11."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from robustbench_cli.core.gradient_ascent import Start, StepSize
from robustbench_cli.core.losses import kl, wide
from robustbench_cli.core.model_modes import Mode
from robustbench_cli.core.registry import Number
from robustbench_cli.defenses import DEFENSES
from robustbench_cli.defenses._step import Passes, Step
from robustbench_cli.defenses.pgd_at import PGDAT


@DEFENSES.register("mart")
@dataclass(frozen=True, kw_only=True)
class MART(PGDAT):
    """PGD-AT with a boosted cross-entropy and a KL weighted by how wrong the clean prediction is.

    With p = softmax f: criterion(f(x_adv), y) - log(1 - max_{k != y} p_k(x_adv)) + beta (1 -
    p_y(x)) KL(p(x) || p(x_adv)).  The inner attack maximises cross-entropy.  The paper says steps
    of eps/4 from a random start; the code takes steps of 0.007 at eps 0.031 from a Gaussian start,
    in eval mode, and small constants inside the logarithm and the weight.  The code is followed.
    Its ResNet-18 script uses beta 5, lr 0.01 and weight decay 3.5e-3.
    """

    beta: Annotated[Number, Field(ge=0)] = 6.0
    """Weight of the misclassification-aware KL, lambda."""
    step: StepSize = 7 / 31
    start: Start = "gauss"
    attack_mode: Mode = "eval"

    branches: ClassVar[int] = 2
    one_label: ClassVar[bool] = True

    def loss(self, step: Step, logits: Passes) -> Tensor:
        clean, adversarial = wide(logits["clean"]), wide(logits["adv"])
        column = step.y[:, None]
        wrong = adversarial.softmax(1).scatter(1, column, 0).amax(1)
        boosted = step.criterion(adversarial, step.y) - (1.0001 - wrong + 1e-12).log()
        doubt = 1.0000001 - clean.softmax(1).gather(1, column).squeeze(1)
        return boosted + self.beta * doubt * kl(adversarial, clean)
