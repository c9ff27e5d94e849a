"""PGD adversarial training (Madry et al., 2018), https://arxiv.org/abs/1706.06083, equation 2.1."""

from dataclasses import dataclass

from torch import Tensor

from robustbench_cli.core.gradient_ascent import ascend
from robustbench_cli.core.losses import cross_entropy
from robustbench_cli.core.model_modes import Mode
from robustbench_cli.defenses import DEFENSES, Adversarial
from robustbench_cli.defenses._step import Passes, Step


@DEFENSES.register("pgd-at", aliases=("at", "madry"))
@dataclass(frozen=True, kw_only=True)
class PGDAT(Adversarial):
    """The criterion on the images that maximise the cross-entropy inside the ball.

    Defaults are those of Madry et al.'s CIFAR-10 configuration and of Rice et al. (2020,
    https://arxiv.org/abs/2002.11569): 10 steps of 2/255 at eps 8/255 (the paper's text says 7),
    uniform start, attacked in train mode, where each inner pass updates BatchNorm's running
    statistics.  In L2 Rice et al.'s code begins with ``start=radial``, but on SVHN, where its start
    is far outside the ball and its first step ends on the sphere: ``start=uniform`` is nearest.

    Here BatchNorm sees the inner passes and one on the attacked images.  Codes pass more images in
    train mode: Rice et al.'s and AT-AWP's (Wu et al., 2020) the attacked ones once more, to score
    the restart, and the clean ones last of all, PORT's (Sehwag et al., 2022) the clean ones first.
    Weights learn from the same gradients, running statistics differ by 15 to 30 %.  Starts are
    clipped to [0, 1] here, in PORT's code not before the first step (``start=unclipped``).
    """

    attack_mode: Mode = "train"

    def perturb(self, step: Step) -> Tensor:
        return ascend(
            step.model, cross_entropy, step.y, step.x, step.threat, step.noise, self.climb
        )

    def loss(self, step: Step, logits: Passes) -> Tensor:
        return step.criterion(logits["adv"], step.y)
