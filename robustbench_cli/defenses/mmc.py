"""Max-Mahalanobis center loss (Pang et al., 2020), https://arxiv.org/abs/1905.10626."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, PositiveInt
from torch import Tensor

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.gradient_ascent import Loss, ascend
from robustbench_cli.core.losses import picked, soft, wide
from robustbench_cli.core.model_modes import Mode
from robustbench_cli.core.registry import Number
from robustbench_cli.defenses import DEFENSES, Adversarial, Modifier, Recipe
from robustbench_cli.defenses._centers import replace_head
from robustbench_cli.defenses._own_loss import OwnLoss
from robustbench_cli.defenses._step import Passes, Step
from robustbench_cli.models import Classifier


@DEFENSES.register("mmc")
@dataclass(frozen=True, kw_only=True)
class MMC(OwnLoss):
    """Pull each image's feature z to the fixed center of its class; centers are as far apart as
    possible.

    A dense layer gives z, the logits are -||z - center_k||^2, and the loss is ||z - center_y||^2 /
    2 on clean images, without a softmax.  The code leaves out the factor 1/2.

    Cross-entropy saturates on logits so far apart, and attacks that maximise it stall: evaluate
    with margin losses (``pgd:climbs=margin``, ``autoattack``), not by the robust accuracies of the
    training history.
    """

    scale: Annotated[Number, Field(gt=0)] = 10.0
    """Norm of the centers, C_MM; the paper takes 100, too."""
    dim: PositiveInt = 256
    """Dimension of z: at least the number of classes minus one."""
    variant: Literal["paper", "code"] = "paper"
    """The loss is half the squared distance (paper) or all of it (code)."""

    def check(self, recipe: Recipe, epochs: int) -> None:
        for part in recipe.modifiers:
            if type(part).prepare is not Modifier.prepare:
                own, other = DEFENSES.name_of(self), DEFENSES.name_of(part)
                raise UserError(f"{own} replaces the last layer, and so does {other}; use one")
        super().check(recipe, epochs)

    def prepare(self, model: Classifier) -> Classifier:
        return replace_head(model, self.dim, self.scale)

    def score(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the loss (B) of logits (B, classes) and labels (B) or (B, classes)."""
        distance = -(soft(y, wide(logits)) * wide(logits)).sum(1)
        return distance / 2 if self.variant == "paper" else distance

    def loss(self, step: Step, logits: Passes) -> Tensor:
        return self.score(logits["clean"], step.y)


@DEFENSES.register("mmc-at")
@dataclass(frozen=True, kw_only=True)
class MMCAT(MMC, Adversarial):
    """The MMC loss on images that maximise it, or that approach the center of another class.

    (1 - r) loss(x) + r loss(x_adv).  The inner attack maximises this very loss; cleverhans, with
    which the official code attacks, maximises cross-entropy unless it is edited by hand, and away
    from the class that the net predicts, not from the label.  Keras attacks in its training phase,
    with batch statistics: ``attack_mode=frozen``.  The code decays the convolutions alone; here
    ``optimizer.decay_norm=false`` decays the dense layer that gives z, too.  AutoAttack leaves
    43.48 % where 55.0 was reported.
    """

    share: Annotated[Number, Field(ge=0, le=1)] = 1.0
    """Weight of the adversarial term, r; the clean one has the rest."""
    targeted: bool = False
    """Attack towards a random center, which may be the image's own, instead."""
    attack_mode: Mode = "frozen"

    def perturb(self, step: Step) -> Tensor:
        if self.targeted:
            drawn = step.noise.fork("target").uniform(step.x[:, 0, 0, 0])
            return self._ascend(step, picked, (drawn * step.classes).long())
        return self._ascend(step, self.score, step.y)

    def _ascend(self, step: Step, loss: Loss, target: Tensor) -> Tensor:
        return ascend(step.model, loss, target, step.x, step.threat, step.noise, self.climb)

    def loss(self, step: Step, logits: Passes) -> Tensor:
        adversarial = self.score(logits["adv"], step.y)
        if self.share == 1:
            return adversarial
        return (1 - self.share) * super().loss(step, logits) + self.share * adversarial
