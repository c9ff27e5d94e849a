"""The Carlini-Wagner margin inside PGD, the "CW-k" of the papers' tables.

Loss: Carlini & Wagner (2017), https://arxiv.org/abs/1608.04644, equation f6; used in PGD by
Madry et al. (2018), https://arxiv.org/abs/1706.06083, with kappa = 50.
"""

from dataclasses import dataclass

from torch import Tensor

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.attacks.pgd import PGD
from robustbench_cli.losses import margin

KAPPA = 50.0


def cw_margin(logits: Tensor, y: Tensor) -> Tensor:
    """-max(z_y - max_wrong z + kappa, 0): climbing stops only 50 logits past the boundary."""
    return margin(logits, y).clamp(max=KAPPA)


@ATTACKS.register("cw", pattern=r"cw-?(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class CW(PGD):
    """PGD on the logit margin instead of the cross-entropy, which saturates.

    This is not the minimal-norm C&W attack; CW-k in the tables of Madry, Feature Scattering and
    AWP is this one.  Steps default to eps/4.
    """

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        return cw_margin(logits, y)
