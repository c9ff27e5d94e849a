"""Max-Mahalanobis centers (Pang et al., 2020), https://arxiv.org/abs/1905.10626."""

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
    """Pull each image's z to its class's center; centers are fixed and as far apart as can be.

    An extra dense layer gives z, the logits are -||z - center||^2, without a softmax; the loss is
    half of the true one's distance, the whole in the code.  Cross-entropy saturates on logits so
    far apart, and attacks that climb it stall: judge by margins (``pgd:climbs=margin``,
    ``autoattack``), not by the robust accuracies of the history.
    """

    scale: Annotated[Number, Field(gt=0)] = 10.0
    """Length of the centers, C_MM; the paper takes 100, too."""
    dim: PositiveInt = 256
    """Length of z: at least the number of classes less one."""
    variant: Literal["paper", "code"] = "paper"
    """Half of the squared distance (paper) or all of it (code)."""

    def check(self, recipe: Recipe, epochs: int) -> None:
        for part in recipe.modifiers:
            if type(part).prepare is not Modifier.prepare:
                own, other = DEFENSES.name_of(self), DEFENSES.name_of(part)
                raise UserError(f"{own} replaces the last layer, and so does {other}; use one")
        super().check(recipe, epochs)

    def prepare(self, model: Classifier) -> Classifier:
        return replace_head(model, self.dim, self.scale)

    def score(self, logits: Tensor, y: Tensor) -> Tensor:
        """The loss (B)."""
        distance = -(soft(y, wide(logits)) * wide(logits)).sum(1)
        return distance / 2 if self.variant == "paper" else distance

    def loss(self, step: Step, logits: Passes) -> Tensor:
        return self.score(logits["clean"], step.y)


@DEFENSES.register("mmc-at")
@dataclass(frozen=True, kw_only=True)
class MMCAT(MMC, Adversarial):
    """The same on images that go away from their center, or towards another.

    The inner attack climbs this very loss.  (cleverhans, which the official code attacks with,
    climbs cross-entropy unless it is edited by hand.)  Keras attacks in its training phase, with
    batch statistics: ``attack_mode=frozen``.  AutoAttack finds 43.48 % where 55.0 was reported.
    """

    share: Annotated[Number, Field(ge=0, le=1)] = 1.0
    """Weight of the adversarial term, r; the clean one has the rest."""
    targeted: bool = False
    """Whether images go towards a random center, which may be their own."""
    attack_mode: Mode = "frozen"

    def perturb(self, step: Step) -> Tensor:
        if self.targeted:
            drawn = step.noise.fork("target").uniform(step.x[:, 0, 0, 0])
            return self._climbed(step, picked, (drawn * step.classes).long())
        return self._climbed(step, self.score, step.y)

    def _climbed(self, step: Step, loss: Loss, target: Tensor) -> Tensor:
        return ascend(step.model, loss, target, step.x, step.threat, step.noise, self.climb)

    def loss(self, step: Step, logits: Passes) -> Tensor:
        adversarial = self.score(logits["adv"], step.y)
        if self.share == 1:
            return adversarial
        return (1 - self.share) * super().loss(step, logits) + self.share * adversarial
