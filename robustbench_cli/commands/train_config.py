"""The configuration of a training run: data set's defaults < preset < flags < ``--set``."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from robustbench_cli.commands.components import (
    given_label,
    recipe_tables,
    with_all_parameters,
    with_registered_names,
)
from robustbench_cli.commands.threat_config import resolve_threat
from robustbench_cli.config import presets
from robustbench_cli.config.layers import ConfigTable, apply_settings, merge_layers, parse_settings
from robustbench_cli.config.schema import TrainConfig, is_metric, spec_of, specs_of, validated
from robustbench_cli.core.errors import UserError
from robustbench_cli.data import DATASETS, Dataset
from robustbench_cli.defenses import DEFENSES, Objective, Recipe

FALLBACK: ConfigTable = {"optimizer": {"name": "sgd"}, "schedule": {"name": "piecewise"}}
"""Settings where not even the data set has defaults (Rice et al., 2020,
https://arxiv.org/abs/2002.11569)."""
SMOKE: ConfigTable = {
    "dataset": {"name": "digits"},
    "train": {"limit": 96, "batch_size": 32, "probe": 32},
}
"""The settings of a smoke run, whatever the recipe; the model is the objective's."""
SMOKE_SIDE = 8
"""Pixels a side of the digits."""
SMOKE_AT_MOST = {"epochs": 12, "select_epoch": 12, "validation": 32, "lr": 0.01, "begin": 6}
"""The largest values of a smoke run: long enough for what begins after some epochs, slow enough
that no small net diverges."""


def resolve_train_config(
    typed: ConfigTable, pairs: list[str], *, smoke: bool = False
) -> TrainConfig:
    """Return the whole configuration: data set's defaults < preset < flags < ``--set``.

    Args:
        typed: what flags said, by section; ``preset`` may name one.
        pairs: what ``--set`` said, as ``key=value``.
        smoke: run the same code in seconds: the digits, few of them, few epochs.

    Raises:
        UserError: an unknown name, a bad value, or a combination that makes no sense.
    """
    changes = training_settings(pairs)
    name, preset = typed.get("preset"), _preset_of(typed)
    layers = [preset, typed]
    layers += [_smoke_layer(merge_layers(*layers))] if smoke else []
    dataset, values = data_and_values(
        layers, changes, lambda data: merge_layers(FALLBACK, data.defaults)
    )
    if name:
        values["preset"] = preset["preset"]
    if smoke:
        values["train"] = _capped(values["train"])
        values["extra"] = values["dataset"] if values.get("extra") else {}
    if not values.get("defense"):
        raise UserError("name a defense, e.g. advbench train trades; advbench list defenses")
    values = with_all_parameters(values)
    threat = values["threat"] = resolve_threat(values.get("threat", {}), dataset)
    if not threat.is_ball:
        raise UserError(
            f"training attacks and measures the model within a ball, and {threat.norm} is none: "
            f"train with --norm Linf, L2 or L1, and evaluate with --norm {threat.norm}"
        )
    recipe = Recipe.build(specs_of(values["defense"]))
    if smoke:
        recipe = _small(recipe)
    values["defense"] = recipe_tables(recipe)
    config = validated(TrainConfig, values)
    if is_metric(values):
        raise UserError("metric learning is asked for by --task metric, not by --set")
    recipe.check(config.train.epochs)
    if name:
        _check_needs(name, config, recipe)
    return config


def training_settings(pairs: list[str]) -> ConfigTable:
    """Return what ``--set`` said of a training, as ``key=value``, by section.

    Raises:
        UserError: a text that is none, or a preset, which has an option of its own.
    """
    changes = parse_settings(pairs)
    if "preset" in changes:
        raise UserError("--set preset=...: a preset is named by --preset")
    return changes


def data_and_values(
    layers: Sequence[ConfigTable], changes: ConfigTable, usual: Callable[[Dataset], ConfigTable]
) -> tuple[Dataset, ConfigTable]:
    """Return the data set that is trained on, the digits where none is named, and all settings.

    Args:
        layers: what presets and flags said, by section; a later one goes over an earlier.
        changes: what ``--set`` said, which goes over all of them.
        usual: returns what holds for a data set where nothing else is said.

    Raises:
        UserError: there is no such data set, or it has no such parameter.
    """
    digits: ConfigTable = {"dataset": {"name": "digits"}}
    table = apply_settings(merge_layers(digits, *layers), changes)["dataset"]
    dataset = DATASETS.build(spec_of(table))
    values = apply_settings(merge_layers(usual(dataset), *layers), changes)
    return dataset, {**values, "dataset": table}


def smoke_substitutes(typed: ConfigTable) -> list[str]:
    """Return what a smoke run trains with in place of what was asked for, a phrase each.

    Args:
        typed: what flags said, by section; ``preset`` may name one.
    """
    wanted = merge_layers(_preset_of(typed), typed)
    layer = _smoke_layer(wanted)
    replaced = [
        (given_label(section, wanted[section]), layer[section]["name"])
        for section in ("dataset", "model")
        if section in wanted
    ]
    return [f"{small} in place of {name}" for name, small in replaced if name != small]


def _smoke_layer(values: ConfigTable) -> ConfigTable:
    """Return ``SMOKE`` with the model that a configuration's objective can be trained on."""
    kinds = [DEFENSES.entry(spec.name).cls for spec in specs_of(values.get("defense", {}))]
    small = [kind.small_model for kind in kinds if issubclass(kind, Objective)]
    return {**SMOKE, "model": {"name": [*small, Objective.small_model][0]}}


def _preset_of(typed: ConfigTable) -> ConfigTable:
    """Return the settings of the preset that was named; none where none was."""
    name = typed.get("preset")
    return with_registered_names(presets.load_preset(name)) if name else {}


def _check_needs(preset: str, config: TrainConfig, recipe: Recipe) -> None:
    """Raise ``UserError`` unless the options that a preset does not go without were given.

    What the rest of the command leaves without use is not asked for.
    """
    roles = {role.rstrip("0123456789") for role in config.parents}
    given = {*roles, *(["extra-data"] if config.extra else [])}
    used = {
        "extra-data": config.train.extra_share > 0,
        "init": True,  # any method can begin at a trained net
        "teacher": recipe.objective.teachers > 0,
    }
    if lost := [need for need in presets.needs(preset) if used[need] and need not in given]:
        raise UserError(f"preset {preset!r} needs {' and '.join(presets.as_typed(lost))}")


def _small(recipe: Recipe) -> Recipe:
    """Return a recipe whose settings in pixels or epochs are cut down to those of a smoke run."""
    modifiers = tuple(each.small(SMOKE_SIDE) for each in recipe.modifiers)
    tables = recipe_tables(replace(recipe, modifiers=modifiers))
    return Recipe.build(specs_of({name: _capped(table) for name, table in tables.items()}))


def _capped(section: ConfigTable) -> ConfigTable:
    """Return settings with those that are too large for a smoke run cut down."""
    cut = {
        key: min(value, SMOKE_AT_MOST[key])
        for key, value in section.items()
        if key in SMOKE_AT_MOST and isinstance(value, int | float)
    }
    return {**section, **cut}
