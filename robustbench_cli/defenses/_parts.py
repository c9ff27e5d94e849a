"""The classes that defenses derive from: objectives and modifiers, and their registry."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from torch import Tensor, nn

from robustbench_cli.core.gradient_ascent import Ascent, Steps, StepSize, TrainingStart, check_reach
from robustbench_cli.core.losses import Criterion
from robustbench_cli.core.model_modes import Mode
from robustbench_cli.core.registry import Registry
from robustbench_cli.defenses._step import Passes, Setting, Step
from robustbench_cli.models import Classifier, Shape

if TYPE_CHECKING:
    from robustbench_cli.defenses._recipe import Recipe


class Defense(ABC):
    """One part of a recipe: an objective or a modifier; every default changes nothing."""

    alone: ClassVar[str] = ""
    """Why several processes cannot share a batch, for the message that refuses them; empty: they
    can."""
    deployed: ClassVar[tuple[str, ...]] = ()
    """Parameters that change the evaluated model, not its training: an evaluation may set them."""
    one_label: ClassVar[bool] = False
    """True if it needs one class per example, so that mixed labels (shares of several) are
    refused."""

    def network(self, build: Callable[[Shape], Classifier], shape: Shape) -> Classifier:
        """Return a new network for the images, where a part wants another one than ``build`` makes.

        Like ``prepare`` it is called before training and before weights are loaded.

        Args:
            build: returns a network of the configured architecture for images of a shape.
            shape: that of the data set's images.
        """
        return build(shape)

    def prepare(self, model: Classifier) -> Classifier:
        """Return the model with the architecture that this part needs.

        It is called before training and again before weights are loaded, so it must depend on
        hyper-parameters alone.
        """
        return model

    def deploy(self, model: Classifier) -> None:
        """Set a trained model up for evaluation, where that differs from training."""

    def auxiliary(self, setting: Setting) -> nn.Module | None:
        """Return what training needs beside the model: buffers that persist, weights that learn.

        Passes find it as ``step.auxiliary(self, kind)``.  It is saved with the run and restored
        when the run is resumed.
        """
        return None

    def groups(self, auxiliary: nn.Module) -> list[dict[str, object]]:
        """Return the optimiser's parameter groups for the auxiliary module.

        The key ``peak`` gives a group a peak learning rate of its own.
        """
        params = [p for p in auxiliary.parameters() if p.requires_grad]
        return [{"params": params}] if params else []

    def after_optimizer_step(self, step: Step) -> None:
        """Act on the weights as the optimiser's step left them (an average of them, for instance).

        It is called once per update.
        """

    def swap_in_eval_weights(
        self, model: Classifier, auxiliary: nn.Module
    ) -> AbstractContextManager[None]:
        """Give the model the weights that are measured and saved, until the context is left."""
        return nullcontext()

    def check(self, recipe: "Recipe", epochs: int) -> None:
        """Refuse a combination that makes no sense, before training.

        Raises:
            UserError: with the reason.
        """

    def warnings(self) -> list[str]:
        """Return what a user should know of settings that are allowed, but misleading."""
        return []


class Objective(Defense):
    """The inputs to train on and the loss to minimise there: exactly one per recipe."""

    attack_mode: Mode = "eval"
    """The mode of the model while ``crafted`` attacks it: eval, train, or frozen (as train, with
    BatchNorm's running statistics left alone)."""
    branches: ClassVar[int] = 1
    """The number of inputs of the loss per example: 2 with a clean and an adversarial one."""
    teachers: ClassVar[int] = 0
    """The number of frozen teachers that it learns from."""
    taps: ClassVar[tuple[str, ...]] = ()
    """Features that the loss reads as ``logits.features(name, tap)``: see ``models.taps``."""
    small_model: ClassVar[str] = "digits-cnn"
    """The registered model that a smoke run on the digits trains in place of any other."""
    unlabelled: ClassVar[bool] = False
    """True if it can train on examples without a label (label -100)."""

    @property
    def updates_per_batch(self) -> int:
        """The number of updates of the weights per batch."""
        return 1

    def perturb(self, step: Step) -> Tensor:
        """Return the images to train on (B, C, H, W) in [0, 1], detached."""
        return step.x

    def crafted(self, step: Step) -> Mapping[str, Tensor]:
        """Return all inputs of ``loss`` beside ``clean``, by name: ``adv`` (B, C, H, W).

        It runs with the model in ``attack_mode``.  Images go through the model when the loss asks
        for ``logits[name]``; any other tensor is found as ``logits.inputs[name]``.
        """
        return {"adv": self.perturb(step)}

    @abstractmethod
    def loss(self, step: Step, logits: Passes) -> Tensor:
        """Return one loss per example (B), which the recipe averages over the batch.

        Logits are scored against labels with ``step.criterion``, which modifiers may have changed.
        A method that needs a mean over the batch itself finds in ``_step`` how to write it.
        """

    def after_backward(self, step: Step, inputs: Mapping[str, Tensor]) -> None:
        """Act once the backward pass is done and before the optimiser's step.

        Args:
            inputs: what ``crafted`` returned, images (B, C, H, W) as a rule; tensors that required
                a gradient have it now.
        """


class Modifier(Defense):
    """A change to how any objective is trained: override the pieces that it changes."""

    unlabelled: ClassVar[bool] = True
    """True if it lets examples pass that have no label (label -100)."""
    held: ClassVar[bool] = False
    """True if the weights that ``weights`` moved stay moved while the optimiser steps, so that its
    weight decay acts on them."""

    def fit(self, objective: Objective) -> Self:
        """Return this modifier with the defaults that depend on the objective filled in."""
        return self

    def small(self, side: int) -> Self:
        """Return the modifier for a smoke run on images of ``side`` pixels.

        One that counts pixels must shrink them.
        """
        return self

    def inputs(self, step: Step) -> Step:
        """Return the step with the batch replaced, before anything is made from it."""
        return step

    def criterion(self, base: Criterion) -> Criterion:
        """Return the criterion that the objective is to use, made from ``base``."""
        return base

    def penalty(self, step: Step, logits: Passes) -> Tensor | None:
        """Return one more term of the loss per example (B), or None."""
        return None

    def weights(self, step: Step, loss: Callable[[], Tensor]) -> AbstractContextManager[None]:
        """Move the weights to where the gradient is to be taken, until the context is left.

        Args:
            loss: evaluates the batch's mean loss (0-dim) at the weights as they are.
        """
        return nullcontext()


@dataclass(frozen=True, kw_only=True)
class Adversarial(Objective):
    """The objectives that attack the model with projected gradient ascent while it trains."""

    steps: Steps = 10
    """Steps of the inner attack."""
    step: StepSize = 0.25
    """Step size as a fraction of eps: 2/255 at eps 8/255 is 1/4, 0.007 at 0.031 is 7/31."""
    start: TrainingStart = "uniform"
    """The start of the inner attack, clipped to [0, 1]: clean, uniform (in the ball), gauss (0.001
    N(0, 1)), or radial (a random direction, a uniform length); or unclipped, uniform in the ball
    and clipped only after the first step."""
    attack_mode: Mode = "eval"
    """The net in the inner attack: eval; train (BatchNorm's running statistics follow, dropout is
    on); or frozen (as train, but the running statistics are left alone)."""

    def __post_init__(self) -> None:
        check_reach(self.steps, self.step)

    @property
    def climb(self) -> Ascent:
        """The settings of the inner attack, as ``ascend`` takes them."""
        return Ascent(steps=self.steps, step=self.step, start=self.start)


DEFENSES: Registry[Objective | Modifier] = Registry("defense", "robustbench_cli.defenses")
