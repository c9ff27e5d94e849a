"""Defenses: one objective, any number of modifiers, composed as ``trades+awp+he``.

An *objective* says which inputs to train on and what to minimise there.  A *modifier* changes
how any objective is trained.  Both are hyper-parameters and nothing else: what changes during
training lives in the model.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from torch import Tensor, nn

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.gradient_ascent import Ascent, Start, Steps, StepSize, check_reach
from robustbench_cli.core.losses import Criterion, hits
from robustbench_cli.core.model_modes import Mode, borrowed
from robustbench_cli.core.registry import Registry, Spec
from robustbench_cli.defenses._step import SCORED, Passes, Setting, Step, Trained
from robustbench_cli.distributed.sync_layers import whole_batch
from robustbench_cli.masks import Sight, bind_to_images
from robustbench_cli.models import Classifier


class Defense(ABC):
    """What objectives and modifiers share."""

    alone: ClassVar[str] = ""
    """Why processes cannot share a batch, where they cannot: what it does with one."""
    deployed: ClassVar[tuple[str, ...]] = ()
    """Parameters that change what is measured, not the training: an evaluation may set them."""
    one_label: ClassVar[bool] = False
    """Whether it needs one class per example: mixed labels have shares of several."""

    def prepare(self, model: Classifier) -> Classifier:
        """Change the architecture; called before training and again before loading weights.

        It must depend on hyper-parameters alone.
        """
        return model

    def deploy(self, model: Classifier) -> None:
        """Set a trained model up for evaluation, where that differs from training."""

    def auxiliary(self, setting: Setting) -> nn.Module | None:
        """What training needs beside the model: buffers that persist, parameters that learn.

        It is found again as ``step.aid(self, kind)``, resumed with the run and saved with it.
        """
        return None

    def groups(self, auxiliary: nn.Module) -> list[dict[str, object]]:
        """The optimiser's parameter groups for an aid; ``peak`` is a learning rate of its own."""
        params = [p for p in auxiliary.parameters() if p.requires_grad]
        return [{"params": params}] if params else []

    def after_optimizer_step(self, step: Step) -> None:
        """Called after the optimiser's step, with the weights where they are now."""

    def swap_in_eval_weights(
        self, model: Classifier, auxiliary: nn.Module
    ) -> AbstractContextManager[None]:
        """Lend the model the weights that are measured and saved, where an aid has others."""
        return nullcontext()

    def check(self, recipe: "Recipe", epochs: int) -> None:
        """Raise ``UserError`` for a combination that makes no sense, with the reason."""

    def warnings(self) -> list[str]:
        """What a user should know before training: settings that are allowed, but mislead."""
        return []


class Objective(Defense):
    """What to train on and what to minimise: exactly one per recipe."""

    attack_mode: Mode = "eval"
    """The mode the model is in while ``perturb`` runs."""
    branches: ClassVar[int] = 1
    """How many inputs the loss looks at per example: 2 with a clean and an adversarial one."""
    teachers: ClassVar[int] = 0
    """How many frozen teachers it learns from."""
    taps: ClassVar[tuple[str, ...]] = ()
    """Features that the loss reads, as ``logits.features(pass, tap)``: see ``models.taps``."""
    unlabelled: ClassVar[bool] = False
    """Whether it knows what to do with examples that have no label."""

    @property
    def updates_per_batch(self) -> int:
        """Updates of the weights that each batch gives."""
        return 1

    def perturb(self, step: Step) -> Tensor:
        """Inputs to train on (B, C, H, W), detached."""
        return step.x

    def crafted(self, step: Step) -> Mapping[str, Tensor]:
        """All that ``loss`` looks at beside ``clean``, made in ``attack_mode``, by name.

        Images go through the model as ``logits[name]``; anything is found as
        ``logits.inputs[name]``.
        """
        return {"adv": self.perturb(step)}

    @abstractmethod
    def loss(self, step: Step, logits: Passes) -> Tensor:
        """One loss per example; score logits against labels with ``step.criterion``."""

    def after_backward(self, step: Step, inputs: Mapping[str, Tensor]) -> None:
        """Called after the backward pass; inputs that required a gradient have it now."""


class Modifier(Defense):
    """Override the pieces you change; each default leaves training as it was."""

    unlabelled: ClassVar[bool] = True
    """Whether it lets examples through that have no label."""
    held: ClassVar[bool] = False
    """Whether the optimiser steps while ``weights`` holds them moved: its decay acts there."""

    def fit(self, objective: Objective) -> Self:
        """This modifier with the defaults that depend on the objective filled in."""
        return self

    def small(self, side: int) -> Self:
        """What a smoke run on images of ``side`` pixels takes: itself, if it counts no pixels."""
        return self

    def inputs(self, step: Step) -> Step:
        """Replace the batch before anything is made from it."""
        return step

    def criterion(self, base: Criterion) -> Criterion:
        """Wrap the criterion that the objective will use."""
        return base

    def penalty(self, step: Step, logits: Passes) -> Tensor | None:
        """One more term per example."""
        return None

    def weights(self, step: Step, loss: Callable[[], Tensor]) -> AbstractContextManager[None]:
        """Move the weights to where the gradient is taken; put them back once it was used."""
        return nullcontext()


@dataclass(frozen=True, kw_only=True)
class Adversarial(Objective):
    """What the objectives with an inner ascent have in common."""

    steps: Steps = 10
    """Steps of the inner attack."""
    step: StepSize = 0.25
    """Step size as a fraction of eps: 2/255 at eps 8/255 is 1/4, 0.007 at 0.031 is 7/31."""
    start: Start = "uniform"
    """Where the inner attack begins: clean, uniform (in the ball), gauss (0.001 N(0, 1)), or radial
    (a random direction, a uniform length)."""
    attack_mode: Mode = "eval"
    """The net in the inner attack: eval; train (BatchNorm's running statistics follow, dropout is
    on); or frozen (as train, but the running statistics are left alone)."""

    def __post_init__(self) -> None:
        check_reach(self.steps, self.step)

    @property
    def climb(self) -> Ascent:
        """The inner walk."""
        return Ascent(steps=self.steps, step=self.step, start=self.start)


DEFENSES: Registry[Objective | Modifier] = Registry("defense", __name__)


@dataclass(frozen=True)
class Recipe:
    """A defense as trained: one objective and its modifiers, in the order written."""

    objective: Objective
    modifiers: tuple[Modifier, ...] = ()

    @classmethod
    def build(cls, specs: Sequence[Spec]) -> "Recipe":
        """The recipe these parts make; raise ``UserError`` unless it has one objective."""
        parts = [DEFENSES.build(spec) for spec in specs]
        objectives = [part for part in parts if isinstance(part, Objective)]
        if len(objectives) != 1:
            names = "+".join(spec.name for spec in specs)
            ways = ["-".join(map(DEFENSES.name_of, way)) for way in (objectives, objectives[::-1])]
            both = "".join(f"; {way} is both in one" for way in ways if way in objective_names())
            raise UserError(
                f"a defense needs exactly one objective, {names!r} has {len(objectives)}{both}"
                " (objectives: " + ", ".join(objective_names()) + ")"
            )
        modifiers = [part for part in parts if isinstance(part, Modifier)]
        twice = {type(m) for m in modifiers if sum(type(o) is type(m) for o in modifiers) > 1}
        if twice:
            name = DEFENSES.describe(next(m for m in modifiers if type(m) in twice))["name"]
            raise UserError(f"modifier {name!r} is given twice; once is enough")
        return cls(objectives[0], tuple(m.fit(objectives[0]) for m in modifiers))

    @property
    def parts(self) -> tuple[Objective | Modifier, ...]:
        """The objective first, then the modifiers."""
        return (self.objective, *self.modifiers)

    def check(self, epochs: int) -> None:
        """Raise ``UserError`` for combinations that make no sense."""
        for part in self.parts:
            part.check(self, epochs)

    def warnings(self) -> list[str]:
        """What the parts have to say before training."""
        return [text for part in self.parts for text in part.warnings()]

    def prepare(self, model: Classifier) -> Classifier:
        """The architecture as every part wants it."""
        for part in self.parts:
            model = part.prepare(model)
        return model

    def deploy(self, model: Classifier) -> None:
        """A trained model as every part wants it evaluated."""
        for part in self.parts:
            part.deploy(model)

    def auxiliaries(self, setting: Setting) -> nn.ModuleDict:
        """What the parts need beside the model, by the name of the part's class."""
        made = {type(part).__name__: part.auxiliary(setting) for part in self.parts}
        return nn.ModuleDict(
            {name: auxiliary for name, auxiliary in made.items() if auxiliary is not None}
        )

    def groups(self, auxiliaries: nn.ModuleDict) -> list[dict[str, object]]:
        """The parameter groups of all aids."""
        return [
            group
            for part, auxiliary in self._having(auxiliaries)
            for group in part.groups(auxiliary)
        ]

    def after_optimizer_step(self, step: Step) -> None:
        """Tell every part that the optimiser has made its step."""
        for part in self.parts:
            part.after_optimizer_step(step)

    @contextmanager
    def swap_in_eval_weights(self, model: Classifier, auxiliaries: nn.ModuleDict) -> Iterator[None]:
        """The model with the weights that are measured and saved."""
        with ExitStack() as lent:
            for part, auxiliary in self._having(auxiliaries):
                lent.enter_context(part.swap_in_eval_weights(model, auxiliary))
            yield

    def _having(self, auxiliaries: nn.ModuleDict) -> list[tuple[Objective | Modifier, nn.Module]]:
        named = [(part, type(part).__name__) for part in self.parts]
        return [(part, auxiliaries[name]) for part, name in named if name in auxiliaries]

    def backward(self, step: Step, release: ExitStack) -> Trained:
        """Leave the gradient of one batch in the parameters.

        Weights that a modifier moved go back once the gradient is there; those that are ``held``
        when ``release`` closes, after the optimiser's step (AWP decays the moved weights).
        """
        for modifier in self.modifiers:
            step = modifier.inputs(replace(step, criterion=modifier.criterion(step.criterion)))
        # Rows may meet above, so every process has them all; from here on each has its own.
        with whole_batch(step.shard, len(step.x)):
            return self._backward(step.part(), release)

    def _backward(self, step: Step, release: ExitStack) -> Trained:
        sight = Sight(model=step.model, x=step.x, y=step.y)
        step = replace(step, threat=bind_to_images(step.threat, sight))
        with borrowed(step.model, self.objective.attack_mode):
            crafted = self.objective.crafted(step)

        def evaluated() -> tuple[Tensor, Passes]:
            logits = Passes(step.model, {"clean": step.x, **crafted}, self.objective.taps)
            total = self.objective.loss(step, logits)
            for modifier in self.modifiers:
                term = modifier.penalty(step, logits)
                total = total if term is None else total + term
            return total.sum() / step.size, logits

        with ExitStack() as gradient:
            for modifier in self.modifiers:
                until = release if modifier.held else gradient
                until.enter_context(modifier.weights(step, lambda: evaluated()[0]))
            loss, logits = evaluated()
            loss.backward()  # type: ignore[no-untyped-call]
            step.shard.all_reduce_sum_(step.gradients())
        self.objective.after_backward(step, crafted)
        seen = logits.seen
        right = {name: hits(seen[name], step.y).sum() for name in SCORED if name in seen}
        return Trained(loss.detach(), right)


def objective_names() -> list[str]:
    """The registered objectives, for error messages."""
    return [n for n in DEFENSES.names() if issubclass(DEFENSES.entry(n).cls, Objective)]


def parse(text: str) -> list[Spec]:
    """``trades:beta=6+awp+he`` to specs."""
    return [Spec.parse(part) for part in re.split(r"\+(?=[A-Za-z])", text)]
