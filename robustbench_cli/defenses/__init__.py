"""Defenses: one objective, any number of modifiers, composed as ``trades+awp+he``.

An *objective* says which inputs to train on and what to minimise there.  A *modifier* changes
how any objective is trained.  Both are hyper-parameters and nothing else: what changes during
training lives in the model.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, Self

from torch import Tensor

from robustbench_cli.ascent import Ascent, Start, Steps, StepSize, check_reach
from robustbench_cli.errors import UserError
from robustbench_cli.losses import Criterion, cross_entropy
from robustbench_cli.models import Classifier
from robustbench_cli.modes import Mode, borrowed
from robustbench_cli.noise import Noise
from robustbench_cli.registry import Registry, Spec
from robustbench_cli.threat import Threat


@dataclass(frozen=True, kw_only=True)
class Step:
    """Everything a defense may know about one training step."""

    model: Classifier
    x: Tensor
    y: Tensor
    threat: Threat
    noise: Noise
    criterion: Criterion = cross_entropy
    epoch: int = 0


class Passes:
    """The forward passes of one evaluation of the loss, by name: ``clean``, ``adv``.

    Each input goes through the model once, at first use, so that a penalty reads the logits the
    objective already has; the order of first use is the order that BatchNorm sees.
    """

    def __init__(self, model: Classifier, inputs: Mapping[str, Tensor]) -> None:
        self.seen: dict[str, Tensor] = {}
        self._model = model
        self._inputs = inputs

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.seen:
            self.seen[name] = self._model(self._inputs[name])
        return self.seen[name]


class Trained(NamedTuple):
    """One batch, after its gradient was left in the parameters.

    ``correct`` counts right answers (0-dim tensors, no synchronisation) for each named pass.
    """

    loss: Tensor
    correct: dict[str, Tensor]


class Defense(ABC):
    """What objectives and modifiers share."""

    def prepare(self, model: Classifier) -> Classifier:
        """Change the architecture; called before training and again before loading weights.

        It must depend on hyper-parameters alone.
        """
        return model

    def deploy(self, model: Classifier) -> None:
        """Set a trained model up for evaluation, where that differs from training."""

    def check(self, recipe: "Recipe", epochs: int) -> None:
        """Raise ``UserError`` for a combination that makes no sense, with the reason."""


class Objective(Defense):
    """What to train on and what to minimise: exactly one per recipe."""

    attack_mode: Mode = "eval"
    """The mode the model is in while ``perturb`` runs."""
    branches: ClassVar[int] = 1
    """How many inputs the loss looks at per example: 2 with a clean and an adversarial one."""

    def perturb(self, step: Step) -> Tensor:
        """Inputs to train on (B, C, H, W), detached."""
        return step.x

    @abstractmethod
    def loss(self, step: Step, logits: Passes) -> Tensor:
        """One loss per example; score logits against labels with ``step.criterion``."""


class Modifier(Defense):
    """Override the pieces you change; each default leaves training as it was."""

    def fit(self, objective: Objective) -> Self:
        """This modifier with the defaults that depend on the objective filled in."""
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
    """Where the inner attack begins: clean, uniform (in the ball), or gauss (0.001 N(0, 1))."""
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
            raise UserError(
                f"a defense needs exactly one objective, {names!r} has {len(objectives)}"
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

    def prepare(self, model: Classifier) -> Classifier:
        """The architecture as every part wants it."""
        for part in self.parts:
            model = part.prepare(model)
        return model

    def deploy(self, model: Classifier) -> None:
        """A trained model as every part wants it evaluated."""
        for part in self.parts:
            part.deploy(model)

    def backward(self, step: Step, release: ExitStack) -> Trained:
        """Leave the gradient of one batch in the parameters.

        Weights that a modifier moved go back when ``release`` closes, after the optimiser's step:
        AWP's weight decay is evaluated at the moved weights.
        """
        for modifier in self.modifiers:
            step = modifier.inputs(replace(step, criterion=modifier.criterion(step.criterion)))
        with borrowed(step.model, self.objective.attack_mode):
            x_adv = self.objective.perturb(step)

        def evaluated() -> tuple[Tensor, Passes]:
            logits = Passes(step.model, {"clean": step.x, "adv": x_adv})
            total = self.objective.loss(step, logits)
            for modifier in self.modifiers:
                term = modifier.penalty(step, logits)
                total = total if term is None else total + term
            return total.mean(), logits

        for modifier in self.modifiers:
            release.enter_context(modifier.weights(step, lambda: evaluated()[0]))
        loss, logits = evaluated()
        loss.backward()  # type: ignore[no-untyped-call]
        right = {name: (z.argmax(1) == step.y).sum() for name, z in logits.seen.items()}
        return Trained(loss.detach(), right)


def objective_names() -> list[str]:
    """The registered objectives, for error messages."""
    return [n for n in DEFENSES.names() if issubclass(DEFENSES.entry(n).cls, Objective)]


def parse(text: str) -> list[Spec]:
    """``trades:beta=6+awp+he`` to specs."""
    return [Spec.parse(part) for part in re.split(r"\+(?=[A-Za-z])", text)]
