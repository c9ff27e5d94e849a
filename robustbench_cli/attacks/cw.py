"""The Carlini-Wagner margin inside PGD, the "CW-k" of the papers' tables.

Loss: Carlini & Wagner (2017), https://arxiv.org/abs/1608.04644, equation f6; used in PGD by
Madry et al. (2018), https://arxiv.org/abs/1706.06083, with kappa = 50.
"""

from dataclasses import dataclass
from typing import ClassVar

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.attacks.pgd import PGD, Climbs


@ATTACKS.register("cw", pattern=r"cw-?(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class CW(PGD):
    """PGD on the logit margin instead of the cross-entropy, which saturates.

    This is not the minimal-norm C&W attack (``cw-l2``); CW-k in the tables of Madry, Feature
    Scattering and AWP is this one.  Steps default to eps/4.
    """

    nested_steps: ClassVar[bool] = True

    climbs: Climbs = "cw"
    """What is maximised: here the C&W margin."""
