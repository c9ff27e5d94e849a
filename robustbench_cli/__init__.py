"""advbench: train, attack and report adversarial robustness, from the command line or in Python.

The names below are the public Python API.  Each is imported when it is first used, because torch,
which comes with it, takes seconds to load.

Example:
    >>> from robustbench_cli import Threat, evaluate
    >>> result = evaluate(model, x, y, attacks=["pgd20"], threat=Threat("Linf", 8 / 255))
    >>> result.robust_accuracy["pgd20"]
    0.43
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robustbench_cli.api.attack import AttackResult, attack
    from robustbench_cli.api.evaluate import evaluate
    from robustbench_cli.api.load_model import load_model
    from robustbench_cli.api.load_run import TrainedRun, load_run
    from robustbench_cli.api.result import EvaluationResult
    from robustbench_cli.core.errors import RunError, UserError
    from robustbench_cli.core.threat import Threat
    from robustbench_cli.runs.trust import Finding

__version__ = "0.1.0"

__all__ = [
    "AttackResult",
    "EvaluationResult",
    "Finding",
    "RunError",
    "Threat",
    "TrainedRun",
    "UserError",
    "attack",
    "evaluate",
    "load_model",
    "load_run",
]

_MODULES = {
    "AttackResult": "api.attack",
    "EvaluationResult": "api.result",
    "Finding": "runs.trust",
    "RunError": "core.errors",
    "Threat": "core.threat",
    "TrainedRun": "api.load_run",
    "UserError": "core.errors",
    "attack": "api.attack",
    "evaluate": "api.evaluate",
    "load_model": "api.load_model",
    "load_run": "api.load_run",
}
"""The module that defines each public name."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
