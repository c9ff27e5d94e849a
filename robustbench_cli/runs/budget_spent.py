"""What an evaluation with a budget has spent, and how far each of its attacks has come.

No torch in here: reports start fast.
"""

from dataclasses import dataclass, field
from typing import Literal

from robustbench_cli.runs.settings import Finite

BudgetUnit = Literal["seconds", "passes"]


@dataclass(frozen=True, kw_only=True)
class BudgetSpent:
    """The budget of an evaluation, and what it has spent of it."""

    asked: str
    """As it was written: ``10m``, ``50000passes``."""
    unit: BudgetUnit
    limit: Finite
    """The budget in its unit, over all sessions of the evaluation together."""
    passes: int
    """Passes that verdicts on clean images and attacks took, forward and backward."""
    seconds: Finite
    """The time that they took, over all sessions."""
    ran_out: bool
    """True if something is left to do: accuracies are intervals then."""
    classified: int
    """Clean images that have been classified."""


@dataclass(frozen=True, kw_only=True)
class MemberProgress:
    """How far one member of an attack has come within a budget."""

    member: str
    finished: int
    """Images that it is through with: broken by it, or by none of its restarts and targets, or left
    out where it has no reason to attack them."""
    of: int
    """Images that it is for: those that stood before it, as far as that is known."""
    stages: int
    """Its restarts or targets."""
    stages_finished: int
    """Those of them that are through with all of these images."""


@dataclass(frozen=True, kw_only=True)
class BudgetedOutcome:
    """What a budget has left open of an attack."""

    undecided: int
    """Images that stand so far and that the attack is not through with, or that have not been
    classified yet; 0: nothing is open, and the robust accuracy is exact."""
    least: Finite
    """The robust accuracy if it breaks all of these; ``robust_accuracy`` is that if it breaks
    none."""
    members: list[MemberProgress] = field(default_factory=list)
    """In the order in which they run."""
