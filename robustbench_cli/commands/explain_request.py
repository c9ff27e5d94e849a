"""The request of one ``advbench explain``, and what its record keeps of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from robustbench_cli.commands.components import component_label
from robustbench_cli.commands.eval_request import EvalRequest
from robustbench_cli.commands.object_places import PlaceOptions
from robustbench_cli.core.errors import UserError, hint
from robustbench_cli.core.registry import Spec
from robustbench_cli.explanations import EXPLANATIONS, Explanation
from robustbench_cli.runs import records

Sanity = Literal["all", "cascade", "none"]
"""Weights that are randomised: all at once, layer after layer from the top, or none."""
PREDICTED, LABEL = "predicted", "label"
_KEPT = ("dataset", "model", "defense", "n", "subset", "seed")
"""What an explanation's record keeps of the settings of an evaluation."""


@dataclass(frozen=True, kw_only=True)
class ExplainRequest:
    """The settings of one ``advbench explain``."""

    images: EvalRequest
    """The model and the images; its attacks are none."""
    methods: tuple[str, ...]
    """Explanations with their parameters, as they were typed."""
    target: str = PREDICTED
    """The class that is explained: predicted, label, or a class's name or number."""
    places: PlaceOptions = field(default_factory=PlaceOptions)
    steps: int = 32
    """Parts in which pixels come and go, for insertion and deletion."""
    sanity: Sanity = "all"
    pictured: int = 6
    """Images whose pixels are kept, for the picture."""


def built_methods(texts: tuple[str, ...]) -> dict[str, Explanation]:
    """Return the explanations by label.

    Raises:
        UserError: there is none, an unknown one, or one that is given twice.
    """
    if not texts:
        raise UserError(f"name an explanation{hint('', EXPLANATIONS.names())}")
    return explanations_by_label(texts)


def explanations_by_label(texts: Iterable[str]) -> dict[str, Explanation]:
    """Return explanations as they were typed, by label; none where nothing was.

    Raises:
        UserError: an unknown one, or one that is given twice.
    """
    found: dict[str, Explanation] = {}
    for text in texts:
        method = EXPLANATIONS.build(Spec.parse(text))
        label = component_label(EXPLANATIONS, method)
        if label in found:
            raise UserError(f"explanation {label!r} is given twice; once is enough")
        found[label] = method
    return found


def described_request(
    request: ExplainRequest, methods: Mapping[str, Explanation], config: Mapping[str, Any]
) -> dict[str, Any]:
    """Return every setting that decides the outcome, as a record keeps them.

    Args:
        config: those of an evaluation of the same images.
    """
    about = {
        "methods": {label: EXPLANATIONS.describe(each) for label, each in methods.items()},
        "target": request.target,
        "objects": request.places.described,
        "steps": request.steps,
        "sanity": request.sanity,
    }
    return records.as_json({key: config[key] for key in _KEPT if key in config} | about)


def class_number(target: str, classes: Sequence[str]) -> int | None:
    """Return the class that ``--target`` names for all images; None: each image has its own.

    Raises:
        UserError: there is no such class.
    """
    if target in (PREDICTED, LABEL):
        return None
    if target in classes:
        return classes.index(target)
    if target.isdecimal() and int(target) < len(classes):
        return int(target)
    raise UserError(f"--target {target}: no such class{hint(target, [PREDICTED, LABEL, *classes])}")
