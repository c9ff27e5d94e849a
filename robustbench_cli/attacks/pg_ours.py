"""PG_ours, the PGD of robust self-training (Carmon et al., 2019), https://arxiv.org/abs/1905.13736.

It is called PG_ours in the paper's tables.
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
    """PGD with 40 steps of 0.01 at eps 0.031 and five restarts, where every iterate counts.

    The radius is the threat's, so use eps=0.031 (not 8/255) to repeat the paper.  Its code
    classifies each iterate in a separate forward pass and does not clip the random start to
    [0, 1]; here the prediction of the gradient's own pass counts, and starts are valid images.
    """

    nested_steps: ClassVar[bool] = True

    steps: Steps = 40
    step: StepSize = 10 / 31
    """Step size as a fraction of eps: 0.01 at eps 0.031."""
    restarts: Annotated[int, Field(ge=1)] = 5
    """Random restarts; each attacks the examples that the previous ones left unbroken."""
