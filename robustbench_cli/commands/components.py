"""Registered components as tables of settings: parsed from text, completed, built, put into words.

A table is ``{"name": ..., parameters}``, as a configuration and a record hold it.
"""

from collections.abc import Mapping
from typing import Any

from robustbench_cli.attacks import ATTACKS
from robustbench_cli.config import catalogue
from robustbench_cli.config.layers import COMPONENT_SECTIONS, PART_SECTIONS, ConfigTable
from robustbench_cli.config.schema import spec_of, specs_of
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Registry, Spec
from robustbench_cli.data import DATASETS
from robustbench_cli.defenses import DEFENSES, Recipe, parse
from robustbench_cli.models import MODELS, Classifier, Shape
from robustbench_cli.optim import OPTIMIZERS, SCHEDULES

REGISTRIES_BY_SECTION: Mapping[str, Registry[Any]] = {
    "dataset": DATASETS,
    "extra": DATASETS,
    "model": MODELS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "defense": DEFENSES,
    "attack": ATTACKS,
}
"""The registry that the names in a section of a configuration belong to."""


def component_table(section: str, text: str) -> ConfigTable:
    """Return the table of a component that is written as ``wrn-28-10`` or ``folder:PATH``.

    Raises:
        UserError: the name is not registered, or the text cannot be read.
    """
    spec = REGISTRIES_BY_SECTION[section].resolve(Spec.parse(text))
    return {"name": spec.name, **spec.params}


def defense_tables(text: str) -> ConfigTable:
    """Return the ``defense`` section for ``trades:beta=1+awp``: a table per part, by its name.

    Raises:
        UserError: a part is unknown or is named twice.
    """
    tables: ConfigTable = {}
    for spec in map(DEFENSES.resolve, parse(text)):
        if spec.name in tables:
            raise UserError(f"{spec.name!r} is given twice in {text!r}; once is enough")
        tables[spec.name] = {"name": spec.name, **spec.params}
    return tables


def with_all_parameters(values: ConfigTable) -> ConfigTable:
    """Return a training configuration whose components have all their parameters written out.

    The defense stays as it is; ``recipe_tables`` completes it.

    Raises:
        UserError: a name or a parameter is wrong.
    """
    whole = dict(values)
    for section in COMPONENT_SECTIONS:
        if values.get(section):
            registry = REGISTRIES_BY_SECTION[section]
            whole[section] = registry.describe(registry.build(spec_of(values[section])))
    return whole


def recipe_tables(recipe: Recipe) -> ConfigTable:
    """Return the ``defense`` section of a recipe, with all parameters."""
    return {table["name"]: table for table in map(DEFENSES.describe, recipe.parts)}


def with_registered_names(preset: ConfigTable) -> ConfigTable:
    """Return a preset whose components have their registered names, so that layers can be merged.

    Raises:
        UserError: a name is not registered.
    """
    result = dict(preset)
    for section in {*COMPONENT_SECTIONS} & {*preset}:
        result[section] = _resolved(section, preset[section])
    for section in {*PART_SECTIONS} & {*preset}:
        parts = preset[section].items()
        result[section] = {label: _resolved(section, table, label) for label, table in parts}
    if "defense" in preset:  # its parts are told apart by name: there is one of each
        result["defense"] = {table["name"]: table for table in result["defense"].values()}
    return result


def _resolved(section: str, table: Mapping[str, Any], label: str = "") -> ConfigTable:
    spec = REGISTRIES_BY_SECTION[section].resolve(spec_of(table, label))
    return {"name": spec.name, **spec.params}


def build_model(config: Mapping[str, Any], shape: Shape) -> Classifier:
    """Return a new network of the architecture that a training configuration describes.

    Args:
        config: its ``model`` and ``defense`` sections; a defense may change first and last layers.
        shape: images and classes of the data set.
    """
    build = MODELS.build(spec_of(config["model"])).build
    return Recipe.build(specs_of(config["defense"])).network(build, shape)


def shape_from_record(table: Mapping[str, Any]) -> Shape:
    """Return the images and classes of a run's data set, from its record."""
    lists = {key: tuple(table[key]) for key in ("mean", "std")}
    return Shape(**{**table, **lists})


def recipe_label(defense: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a recipe as it is typed, ``trades:beta=1.0+awp``; defaults are left out.

    Args:
        defense: the ``defense`` section, with all parameters.
    """
    names = []
    objective = next(iter(defense), "")
    for label, table in defense.items():
        plain = Recipe.build([Spec(objective), *([Spec(label)] if label != objective else [])])
        defaults = recipe_tables(plain)[table["name"]]
        changed = ",".join(f"{k}={_short(v)}" for k, v in table.items() if defaults[k] != v)
        names.append(f"{label}:{changed}" if changed else label)
    return "+".join(names)


def component_label(registry: Registry[Any], component: Any) -> str:
    """Return a component as it is typed, ``gaussian:score=posterior``; defaults are left out."""
    table, defaults = registry.describe(component), registry.describe(type(component)())
    changed = ",".join(
        f"{key}={catalogue.typed(value)}"
        for key, value in table.items()
        if value != defaults.get(key)
    )
    return f"{table['name']}:{changed}" if changed else str(table["name"])


def given_label(section: str, table: Mapping[str, Any]) -> str:
    """Return a component as it is typed: ``hf:PATH``, ``wrn:depth=28``."""
    positional = REGISTRIES_BY_SECTION[section].entry(table["name"]).positional
    given = ",".join(
        catalogue.typed(value) if key == positional else f"{key}={catalogue.typed(value)}"
        for key, value in table.items()
        if key != "name"
    )
    return f"{table['name']}:{given}" if given else str(table["name"])


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
