"""The class that an attack is to reach, as users name it."""

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator

TargetRule = Literal["random", "least-likely", "next"]
"""A class for each example: drawn by a keyed order among the wrong ones, that of the smallest clean
logit, or the one after the true class (after the last one comes the first)."""


def _target(value: Any) -> Any:
    if value in get_args(TargetRule):
        return value
    try:
        number = int(value) if isinstance(value, str) else value
    except ValueError:
        number = None
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise ValueError(f"expected the number of a class, {', '.join(get_args(TargetRule))}")
    return number


Target = Annotated[int | TargetRule, BeforeValidator(_target)]
"""One class for all examples, or a rule that gives each its own."""
