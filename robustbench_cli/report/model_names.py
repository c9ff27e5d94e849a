"""Short names of models that no training run here made: what was typed after ``--model``."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePath

from robustbench_cli.runs.records import Run

SAME = "-"
"""Stands in the column of the architecture where the name of the row says it already."""


def has_own_model(run: Run) -> bool:
    """Return True for an evaluation of a model that no training run here made."""
    return run.parent is None and run.kind in _EVALUATING


_EVALUATING = frozenset({"eval", "attack", "audit", "detect"})


def short_model_name(text: str, parts: int = 1) -> str:
    """Return a model's name with the last parts of its path: ``net.py:make``, ``hf:photos-vit``.

    Args:
        text: ``path/to/net.py:make``, ``hf:path/to/folder``, or any other name, which stays.
        parts: of the path.
    """
    kind, colon, path = text.partition(":")
    if "/" in kind:  # the path comes first
        kind, colon, path = "", "", text
    absolute = path.startswith(("/", "~", "."))
    if "/" not in path or (kind and not absolute and path.count("/") == 1):  # hf:owner/name
        return text
    return f"{kind}{colon}{'/'.join(PurePath(path).parts[-parts:])}"


def short_model_names(texts: Iterable[str]) -> dict[str, str]:
    """Return the short name of each model, with as much of its path as tells it from the others."""
    alike: dict[str, set[str]] = defaultdict(set)
    for text in texts:
        alike[short_model_name(text)].add(text)
    return {text: _apart(text, others) for others in alike.values() for text in others}


def _apart(text: str, others: set[str]) -> str:
    longest = max(len(PurePath(each).parts) for each in others)
    for parts in range(1, longest + 1):
        if len({short_model_name(each, parts) for each in others}) == len(others):
            return short_model_name(text, parts)
    return text
