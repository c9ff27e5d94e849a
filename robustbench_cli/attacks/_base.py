"""What every attack is: hyper-parameters, and the stages in which it runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from robustbench_cli.attacks._target import Target
from robustbench_cli.attacks._task import Access
from robustbench_cli.core.registry import Registry
from robustbench_cli.core.threat import Threat
from robustbench_cli.views import VIEWS, View

ENOUGH_CLASSES = 1000
"""A number of classes for which every attack runs as its paper describes it."""


class Stage(NamedTuple):
    """One restart, or one target class, of one member of an attack."""

    member: str
    """The name under which records count what the member broke."""
    attack: "Attack"
    restart_or_target: int
    """Counted from 0."""
    view: View | None = None
    """The view of the model to search on, if there is reason for it; None: the model itself."""
    most_spent: int | None = None
    """The passes that an example may have cost before, if the stage is still to attack it."""
    deterministic_only: bool = False
    """True if it is left out where the model is randomised: single draws mislead it."""

    @property
    def key(self) -> str:
        """The key of its random numbers: the registered name, so pgd100 begins as pgd20 does."""
        name = ATTACKS.name_of(self.attack)
        return name if self.view is None else f"{name} on {VIEWS.name_of(self.view)}"


@dataclass(frozen=True, kw_only=True)
class Attack:
    """Hyper-parameters of an ``IterativeAttack``, an ``ExternalAttack``, or a series of them."""

    min_classes: ClassVar[int] = 2
    """The number of classes that its loss needs, whatever its parameters."""
    norms: ClassVar[tuple[str, ...]] = ("Linf", "L2", "L1")
    """The norms of the threats that it can work under, whatever its parameters."""
    access: ClassVar[Access] = "gradient"
    """The knowledge of the model that it uses."""

    takes_images: ClassVar[bool] = False
    """True if it looks at other images of the data: of other classes, or of its target."""

    reports: ClassVar[tuple[str, ...]] = ()
    """The names of numbers that it tells of each example's final image (see
    ``ExternalAttack.report``); they stand in ``examples.npz``."""

    omitted_at_default: ClassVar[tuple[str, ...]] = ("target",)
    """The parameters that records leave out where they are not set."""

    target: Target | None = None
    """The class that an image must be made into: its number, ``random``, ``least-likely`` or
    ``next``; None: any wrong class.  With a target the share of images that reach it is measured,
    which is no robust accuracy."""

    @property
    def no_target(self) -> str:
        """The reason why it cannot be given a target; empty: it can.

        With one the attack is shown two logits (see ``Task.target``), so most need not know of it.
        """
        return ""

    @property
    def needs(self) -> int:
        """The number of classes that there must be; fewer are refused before anything runs."""
        return self.min_classes

    @property
    def measures(self) -> tuple[str, ...]:
        """The norms of the threats that it can work under; others are refused."""
        return self.norms

    @property
    def minimal(self) -> bool:
        """True if it looks for the nearest adversarial image, whatever the radius."""
        return False

    @property
    def black_box(self) -> bool:
        """True if it gets answers of the model only, no gradient."""
        return self.access in ("logits", "decision")

    @property
    def nearest_first(self) -> bool:
        """True if its target classes are to come by their distance were the model linear."""
        return False

    @property
    def fits(self) -> bool:
        """True if it is fitted to training images before it sees any example (see ``_fitted``)."""
        return False

    @property
    def needs_float32(self) -> bool:
        """True if it must not work on a rounded model, whose rounding hides what it follows."""
        # A nearest adversarial image lies on the boundary, and differences of probes are small.
        return self.minimal or self.probes > 0

    @property
    def maskable(self) -> bool:
        """True if a mask can be imposed on it from outside, pixel by pixel."""
        return True

    @property
    def draws(self) -> int:
        """The number of passes averaged per step (expectation over transformation)."""
        return 1

    @property
    def probes(self) -> int:
        """The number of images per example that are classified beside the iterate."""
        return 0

    @property
    def planned_passes(self) -> int:
        """The passes, forward and backward, of an image that withstands a restart; an estimate."""
        return 2 * self.draws

    def most_passes(self, classes: int) -> int:
        """Return a bound of the passes of a restart or target on an image.

        Those that every attack takes beside its steps, such as the verdict's, are not in it.

        Args:
            classes: of the model.
        """
        return self.planned_passes

    def members(self, threat: Threat, classes: int = ENOUGH_CLASSES) -> Mapping[str, "Attack"]:
        """Return the attacks it consists of, by the name under which records count each.

        Args:
            classes: of the model; an attack may leave out what is not defined for so few.
        """
        return {ATTACKS.name_of(self): self}

    def needs_gradients(self, threat: Threat) -> bool:
        """Return whether it cannot be run on a model that lets no gradient through.

        A series that tries what it can may leave its gradient searches out; one whose name stands
        for a fixed list may not.
        """
        return not all(each.black_box for each in self.members(threat).values())

    def variant(self, threat: Threat, classes: int) -> str:
        """Return what is to be said where it is not what its name stands for; as a rule nothing.

        The name's column in a table says it, and shares no numbers with columns that do not.
        """
        return ""

    def first_members(self, stages: Sequence[Stage]) -> int | None:
        """Return how many of its stages see every image at most where the rest may be sampled.

        Args:
            stages: all of its stages, in order.

        Returns:
            The number of stages before the tail at most; None: it is no series that has one.
        """
        return None

    def restarts_or_targets(self, classes: int) -> int:
        """Return how often it begins again, each time on the examples that still stand."""
        return 1

    def stages(self, threat: Threat, classes: int) -> list[Stage]:
        """Return every restart or target of every member, in the order in which they run."""
        shown = classes if self.target is None else 2  # the target, and the largest other class
        return [
            Stage(name, member, restart_or_target)
            for name, member in self.members(threat, classes).items()
            for restart_or_target in range(member.restarts_or_targets(shown))
        ]


ATTACKS: Registry[Attack] = Registry("attack", "robustbench_cli.attacks")
