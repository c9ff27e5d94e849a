"""PGD on the Carlini-Wagner margin loss, called CW-k (k steps) in papers' tables.

Loss: Carlini & Wagner (2017), https://arxiv.org/abs/1608.04644, equation f6; used in PGD by
Madry et al. (2018), https://arxiv.org/abs/1706.06083, with kappa = 50.
"""

from dataclasses import dataclass
from typing import ClassVar

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.attacks.pgd import PGD, LossName


@ATTACKS.register("cw", pattern=r"cw-?(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class CW(PGD):
    """PGD on the logit margin instead of the cross-entropy, whose gradient vanishes when saturated.

    This is not the minimum-norm C&W attack (``cw-l2``); CW-k in the tables of Madry, Feature
    Scattering and AWP is this one.  The step size is eps/4 by default.
    """

    nested_steps: ClassVar[bool] = True

    climbs: LossName = "cw"
    """The loss that is maximised: the C&W margin with kappa 50."""
