"""The PGD that robust self-training was evaluated with (Carmon et al., 2019).

https://arxiv.org/abs/1905.13736; PG_ours in its tables.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.attacks.pgd import PGD
from robustbench_cli.core.gradient_ascent import Steps, StepSize


@ATTACKS.register("pg-ours")
@dataclass(frozen=True, kw_only=True)
class PGOurs(PGD):
    """Forty steps of 0.01 at eps 0.031, five starts, every iterate counted.

    The radius is the threat's, so ask for eps=0.031 (not 8/255) to repeat the paper.  Its code
    judges every iterate in a pass of its own and leaves the random start unclipped; here the
    gradient's pass is the one that is judged, and starts are valid images.
    """

    nested_steps: ClassVar[bool] = True

    steps: Steps = 40
    step: StepSize = 10 / 31
    """Step size as a fraction of eps: 0.01 at eps 0.031."""
    restarts: Annotated[int, Field(ge=1)] = 5
    """Independent starts; each works on what the ones before it left standing."""
