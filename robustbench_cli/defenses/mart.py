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
    """A boosted cross-entropy, plus a KL weighted by how wrong the clean prediction is.

    The inner attack maximises cross-entropy.  The paper says steps of eps/4 from a random start,
    the code 0.007 at 0.031 from a Gaussian one, in eval mode: the code is followed, with its
    constants.  Its ResNet-18 script uses beta 5, lr 0.01 and weight decay 3.5e-3.
    """

    beta: Annotated[Number, Field(ge=0)] = 6.0
    """Weight of the misclassification-aware KL."""
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
