"""Projected gradient descent (Madry et al., 2018), https://arxiv.org/abs/1706.06083."""

from dataclasses import dataclass

from torch import Tensor

from robustbench_cli.ascent import Crafted, Model, hunt
from robustbench_cli.attacks import ATTACKS, Iterated
from robustbench_cli.losses import cross_entropy
from robustbench_cli.noise import Noise
from robustbench_cli.threat import Threat


@ATTACKS.register("pgd", pattern=r"pgd-?(?P<steps>\d+)")
@dataclass(frozen=True, kw_only=True)
class PGD(Iterated):
    """Iterated steepest ascent on the cross-entropy from a random start.

    Published defaults differ widely; these are 20 steps of eps/4 (2/255 at eps 8/255), as in
    Madry's CIFAR-10 evaluation.  TRADES' own evaluation is ``pgd20:step=3/31`` at eps 0.031.
    """

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """What is climbed, one number per example; attacks of this family differ here."""
        return cross_entropy(logits, y)

    def __call__(self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: Noise) -> Crafted:
        return hunt(
            model,
            self.loss,
            y,
            x,
            threat,
            noise,
            self.climb,
            restarts=self.restarts,
            last_iterate=self.last_iterate,
        )
