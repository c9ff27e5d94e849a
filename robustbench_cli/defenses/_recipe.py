"""A recipe: one objective and its modifiers, and how they make the gradient of one batch."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor, nn

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.losses import hits
from robustbench_cli.core.model_modes import borrowed
from robustbench_cli.core.registry import Spec
from robustbench_cli.defenses._parts import DEFENSES, Modifier, Objective
from robustbench_cli.defenses._step import SCORED, Passes, Setting, Step, Trained
from robustbench_cli.distributed.sync_layers import whole_batch
from robustbench_cli.masks import MaskContext, bind_to_images
from robustbench_cli.models import Classifier, Shape


def parse(text: str) -> list[Spec]:
    """Return the specs of the parts of a defense as it is typed: ``trades:beta=6+awp+he``."""
    return [Spec.parse(part) for part in re.split(r"\+(?=[A-Za-z])", text)]


@dataclass(frozen=True)
class Recipe:
    """A defense as trained: one objective and its modifiers, in the order written."""

    objective: Objective
    modifiers: tuple[Modifier, ...] = ()

    @classmethod
    def build(cls, specs: Sequence[Spec]) -> "Recipe":
        """Return the recipe that these parts make.

        Raises:
            UserError: a part is unknown, there is not exactly one objective, or a modifier is given
                twice.
        """
        parts = [DEFENSES.build(spec) for spec in specs]
        objectives = [part for part in parts if isinstance(part, Objective)]
        if len(objectives) != 1:
            raise UserError(_not_one_objective(specs, objectives))
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
        """Refuse combinations that make no sense.

        Raises:
            UserError: with the reason.
        """
        for part in self.parts:
            part.check(self, epochs)

    def warnings(self) -> list[str]:
        """Return what the parts have to say before training."""
        return [text for part in self.parts for text in part.warnings()]

    def network(self, build: Callable[[Shape], Classifier], shape: Shape) -> Classifier:
        """Return a new network with the architecture that every part needs.

        Args:
            build: returns a network of the configured architecture for images of a shape.
            shape: that of the data set's images.
        """
        for part in self.parts:
            build = partial(part.network, build)
        return self.prepare(build(shape))

    def prepare(self, model: Classifier) -> Classifier:
        """Return the model with the architecture that every part needs."""
        for part in self.parts:
            model = part.prepare(model)
        return model

    def deploy(self, model: Classifier) -> None:
        """Set a trained model up for evaluation as every part wants it."""
        for part in self.parts:
            part.deploy(model)

    def auxiliaries(self, setting: Setting) -> nn.ModuleDict:
        """Return the auxiliary modules that the parts make, by the name of the part's class."""
        made = {type(part).__name__: part.auxiliary(setting) for part in self.parts}
        return nn.ModuleDict(
            {name: auxiliary for name, auxiliary in made.items() if auxiliary is not None}
        )

    def groups(self, auxiliaries: nn.ModuleDict) -> list[dict[str, object]]:
        """Return the optimiser's parameter groups of all auxiliary modules."""
        return [
            group
            for part, auxiliary in self._with_auxiliary(auxiliaries)
            for group in part.groups(auxiliary)
        ]

    @contextmanager
    def swap_in_eval_weights(self, model: Classifier, auxiliaries: nn.ModuleDict) -> Iterator[None]:
        """Give the model the weights that are measured and saved, until the context is left."""
        with ExitStack() as swapped:
            for part, auxiliary in self._with_auxiliary(auxiliaries):
                swapped.enter_context(part.swap_in_eval_weights(model, auxiliary))
            yield

    def _with_auxiliary(
        self, auxiliaries: nn.ModuleDict
    ) -> list[tuple[Objective | Modifier, nn.Module]]:
        """The parts that have an auxiliary module, each with it."""
        named = [(part, type(part).__name__) for part in self.parts]
        return [(part, auxiliaries[name]) for part, name in named if name in auxiliaries]

    def backward(self, step: Step, until_stepped: ExitStack) -> Trained:
        """Leave the gradient of one batch's mean loss in the parameters.

        Weights that a modifier moved go back once the gradient is there; those of a modifier with
        ``held`` go back when ``until_stepped`` is closed, after the optimiser's step (AWP decays
        the moved weights).
        """
        for modifier in self.modifiers:
            step = modifier.inputs(replace(step, criterion=modifier.criterion(step.criterion)))
        # Modifiers may mix rows (mixup), so every process had them all; from here on each process
        # has its own.
        with whole_batch(step.shard, len(step.x)):
            return self._backward(step.part(), until_stepped)

    def _backward(self, step: Step, until_stepped: ExitStack) -> Trained:
        context = MaskContext(model=step.model, x=step.x, y=step.y)
        step = replace(step, threat=bind_to_images(step.threat, context))
        with borrowed(step.model, self.objective.attack_mode):
            crafted = self.objective.crafted(step)
        with ExitStack() as until_gradient:
            for modifier in self.modifiers:
                until = until_stepped if modifier.held else until_gradient
                moved = modifier.weights(step, lambda: self._mean_loss(step, crafted)[0])
                until.enter_context(moved)
            loss, logits = self._mean_loss(step, crafted)
            loss.backward()  # type: ignore[no-untyped-call]
            step.shard.all_reduce_sum_(step.gradients())
        self.objective.after_backward(step, crafted)
        made = logits.made
        correct = {name: hits(made[name], step.y).sum() for name in SCORED if name in made}
        return Trained(loss.detach(), correct)

    def _mean_loss(self, step: Step, crafted: Mapping[str, Tensor]) -> tuple[Tensor, Passes]:
        """This process's share of the batch's mean loss (0-dim), and the passes it took."""
        logits = Passes(step.model, {"clean": step.x, **crafted}, self.objective.taps)
        losses = self.objective.loss(step, logits)
        for modifier in self.modifiers:
            penalty = modifier.penalty(step, logits)
            losses = losses if penalty is None else losses + penalty
        return losses.sum() / step.size, logits

    def after_optimizer_step(self, step: Step) -> None:
        """Tell every part that the optimiser has made its step."""
        for part in self.parts:
            part.after_optimizer_step(step)


def objective_names() -> list[str]:
    """Return the names of the registered objectives, for error messages."""
    return [n for n in DEFENSES.names() if issubclass(DEFENSES.entry(n).cls, Objective)]


def _not_one_objective(specs: Sequence[Spec], objectives: list[Objective]) -> str:
    """The message for a recipe with no objective, or with several."""
    names = "+".join(spec.name for spec in specs)
    ways = ["-".join(map(DEFENSES.name_of, way)) for way in (objectives, objectives[::-1])]
    both = "".join(f"; {way} is both in one" for way in ways if way in objective_names())
    return (
        f"a defense needs exactly one objective, {names!r} has {len(objectives)}{both}"
        " (objectives: " + ", ".join(objective_names()) + ")"
    )
