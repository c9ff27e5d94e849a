"""Basic iterative method, also I-FGSM (Kurakin et al., 2017), https://arxiv.org/abs/1607.02533."""

from dataclasses import dataclass
from typing import ClassVar

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.attacks.pgd import PGD
from robustbench_cli.core.gradient_ascent import Start, Steps


@ATTACKS.register("bim", aliases=("i-fgsm",), pattern=r"(?:bim|i-fgsm)-?(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class BIM(PGD):
    """PGD without the random start: 10 steps of eps/4 (2/255 at eps 8/255).

    The paper takes steps of 1/255 and min(255 eps + 4, 1.25 x 255 eps) of them:
    ``bim10:step=1/8`` at eps 8/255.
    """

    nested_steps: ClassVar[bool] = True

    steps: Steps = 10
    start: Start = "clean"
