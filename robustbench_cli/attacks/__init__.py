"""Attacks: one file each, found by its registered name.

An attack is a frozen dataclass of hyper-parameters.  It says where to begin (``begin``), which loss
to follow (``loss``) and, given what the model answered, the next images (``move``).  It knows its
examples only as rows of tensors: which examples share a batch, in what precision the model runs,
when an example is done, and how a run is resumed is the business of ``evaluation``.  An attack
proposes images; the verifier of the evaluation decides.
"""

from robustbench_cli.attacks._base import ATTACKS, Attack, Stage
from robustbench_cli.attacks._fitted import FitResult, FitSubject, FittedAttack
from robustbench_cli.attacks._iterative import ExternalAttack, Iterated, IterativeAttack
from robustbench_cli.attacks._target import Target
from robustbench_cli.attacks._task import Access, Observation, Output, State, Task
from robustbench_cli.core.examples import Examples

__all__ = [
    "ATTACKS",
    "Access",
    "Attack",
    "Examples",
    "ExternalAttack",
    "FitResult",
    "FitSubject",
    "FittedAttack",
    "Iterated",
    "IterativeAttack",
    "Observation",
    "Output",
    "Stage",
    "State",
    "Target",
    "Task",
]
