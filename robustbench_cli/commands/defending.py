"""The input defenses of an evaluation: put in front of its model, whatever that is."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

from torch import nn

from robustbench_cli.commands.components import component_label
from robustbench_cli.commands.eval_request import EvalRequest
from robustbench_cli.commands.given_model import settings_digest
from robustbench_cli.config.layers import ConfigTable
from robustbench_cli.config.schema import EvalConfig, spec_of, specs_of
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Spec
from robustbench_cli.data import Split
from robustbench_cli.input_defenses import INPUT_DEFENSES, InputDefense
from robustbench_cli.models.defended import DefendedModel

DefenseChoice: TypeAlias = str | InputDefense
"""An input defense as the command line takes it, or its dataclass."""


def chosen_input_defenses(given: Sequence[DefenseChoice]) -> ConfigTable:
    """Return the ``defend`` section: a table for each input defense, in order, by its label.

    Args:
        given: texts such as ``jpeg:quality=50``, or dataclasses.

    Raises:
        UserError: an unknown defense or parameter, or one that is given twice.
    """
    tables: ConfigTable = {}
    for each in given:
        defense = _built(each)
        label = component_label(INPUT_DEFENSES, defense)
        if label in tables:
            raise UserError(f"input defense {label!r} is given twice; once is enough")
        tables[label] = INPUT_DEFENSES.describe(defense)
    return tables


def _built(given: DefenseChoice) -> InputDefense:
    if isinstance(given, str):
        return INPUT_DEFENSES.build(Spec.parse(given))
    if not isinstance(given, InputDefense):
        raise UserError(
            "an input defense is a name such as 'lgs' or a dataclass of "
            f"robustbench_cli.input_defenses, got {given!r}"
        )
    # Nothing checks a dataclass that is made in Python.
    return INPUT_DEFENSES.build(spec_of(INPUT_DEFENSES.describe(given)))


def listed_defenses(given: DefenseChoice | Sequence[DefenseChoice]) -> list[DefenseChoice]:
    """Return one input defense, or several, as a list."""
    alone = isinstance(given, str | InputDefense)
    return [given] if alone else list(given)  # type: ignore[list-item, arg-type]


def built_defenses(config: EvalConfig) -> list[InputDefense]:
    """Return the input defenses of an evaluation, in order."""
    return [INPUT_DEFENSES.build(spec) for spec in specs_of(config.defend)]


def behind_defenses(
    model: nn.Module, defenses: Sequence[InputDefense], shape: Sequence[int]
) -> nn.Module:
    """Return a model behind input defenses; itself where there are none.

    Args:
        shape: of the images (C, H, W).

    Raises:
        UserError: a defense cannot take images of this shape.
    """
    for defense in defenses:
        defense.check(shape)
    return DefendedModel(model, defenses).eval() if defenses else model


def with_input_defenses(request: EvalRequest, test: Split) -> EvalRequest:
    """Return the request with a model behind the input defenses that were asked for.

    The weights in the record get a mark of the defenses, so that no one takes this model for the
    one without them.

    Args:
        test: the test split.

    Raises:
        UserError: a defense cannot take images of this shape.
    """
    defenses, subject = built_defenses(request.config), request.subject
    if not defenses:
        return request
    model = behind_defenses(subject.model, defenses, test.image_shape)
    remade = subject.copy

    def fresh() -> nn.Module | None:
        inside = None if remade is None else remade()
        return None if inside is None else DefendedModel(inside, defenses).eval()

    behind = replace(
        subject,
        model=model,
        weights=f"{subject.weights}+{settings_digest(request.config.defend)}",
        copy=None if remade is None else fresh,
    )
    return replace(request, subject=behind)
