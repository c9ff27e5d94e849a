"""The configuration of a metric-learning run: usual settings < preset < flags < ``--set``."""

from collections.abc import Mapping
from typing import Any

from robustbench_cli.commands import components
from robustbench_cli.commands.threat_config import resolve_threat
from robustbench_cli.commands.train_config import data_and_values, training_settings
from robustbench_cli.config import presets
from robustbench_cli.config.layers import ConfigTable, merge_layers
from robustbench_cli.config.schema import TrainConfig, is_metric, specs_of, validated
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Spec
from robustbench_cli.data import Dataset
from robustbench_cli.metric_learning import METRIC_DEFENSES, MetricDefense

METRIC_USUAL: ConfigTable = {
    "optimizer": {"name": "adam"},
    "schedule": {"name": "constant"},
    "train": {"epochs": 30, "batch_size": 112, "lr": 0.001},
}
"""Settings where neither a preset nor the command line says anything: batches of 56 pairs (Panum et
al., 2021, https://arxiv.org/abs/2102.07265), Adam at 0.001."""
METRIC_SMOKE: ConfigTable = {
    "dataset": {"name": "digits"},
    "model": {"name": "digits-cnn"},
    "train": {"limit": 96, "batch_size": 32, "probe": 32},
}
_SMOKE_AT_MOST = {"epochs": 2, "validation": 32}


def task_of(typed: ConfigTable) -> str:
    """Return the task that flags or the preset that they name ask for."""
    asked = typed.get("task")
    if asked is not None or not typed.get("preset"):
        return str(asked or "classify")
    return str(presets.load_preset(typed["preset"]).get("task", "classify"))


def metric_tables(text: str) -> ConfigTable:
    """Return the ``defense`` section for ``est:steps=8``.

    Raises:
        UserError: there is no such metric defense, or several are named.
    """
    if "+" in text:
        raise UserError(f"{text!r}: metric learning has one defense, and no modifiers")
    spec = METRIC_DEFENSES.resolve(Spec.parse(text))
    return {spec.name: {"name": spec.name, **spec.params}}


def resolve_metric_config(
    typed: ConfigTable, pairs: list[str], *, smoke: bool = False
) -> TrainConfig:
    """Return the whole configuration: usual settings < preset < flags < ``--set``.

    Args:
        typed: what flags said, by section; ``preset`` may name one.
        pairs: what ``--set`` said, as ``key=value``.
        smoke: run the same code in seconds: the digits, few of them, few epochs.

    Raises:
        UserError: an unknown name, a bad value, or a combination that makes no sense.
    """
    changes, name = training_settings(pairs), typed.get("preset")
    preset = _with_names(presets.load_preset(name)) if name else {}
    layers = [preset, typed, *([METRIC_SMOKE] if smoke else [])]
    dataset, values = data_and_values(layers, changes, _usual)
    values["task"] = "metric"
    if name:
        values["preset"] = preset["preset"]
    if smoke:
        train = values["train"]
        values["train"] = {
            **train,
            **{key: min(int(train.get(key, at)), at) for key, at in _SMOKE_AT_MOST.items()},
        }
    if not values.get("defense"):
        raise UserError(
            "name a metric defense, e.g. advbench train --task metric est; "
            "advbench list metric-defenses"
        )
    for section, option in (("extra", "--extra-data"), ("parents", "--init or --teacher")):
        if values.get(section):
            raise UserError(f"metric learning takes no {option}")
    defense = built(values["defense"])
    values = components.with_all_parameters(values)
    described = METRIC_DEFENSES.describe(defense)
    values["defense"] = {described["name"]: described}
    threat = values["threat"] = resolve_threat(values.get("threat", {}), dataset)
    if not threat.is_ball or threat.mask:
        raise UserError(f"metric learning attacks within a ball and without a mask, not {threat}")
    if values.get("precision", "auto") == "bf16":
        raise UserError("metric learning runs in float32: leave --precision out")
    values["precision"] = "float32"
    config = validated(TrainConfig, values)
    if config.train.select != "last":
        raise UserError(f"metric learning keeps the last epoch, not {config.train.select!r}")
    return config


def _usual(dataset: Dataset) -> ConfigTable:
    """Return the usual settings, with the model that is usual for the data."""
    model = {key: value for key, value in dataset.defaults.items() if key == "model"}
    return merge_layers(METRIC_USUAL, model)


def built(tables: Mapping[str, Mapping[str, Any]]) -> MetricDefense:
    """Return the metric defense of a ``defense`` section.

    Raises:
        UserError: there are several, or a name or a parameter is wrong.
    """
    specs = specs_of(tables)
    if len(specs) != 1:
        raise UserError(f"metric learning has one defense, got {', '.join(tables)}")
    return METRIC_DEFENSES.build(specs[0])


def metric_label(config: Mapping[str, Any]) -> str:
    """Return a run's subject: ``metric est``, with the parameters that are not defaults."""
    return f"metric {components.component_label(METRIC_DEFENSES, built(config['defense']))}"


def refuse_metric(config: Mapping[str, Any], run_id: str) -> None:
    """Raise ``UserError`` for a run whose net names no classes."""
    if is_metric(config):
        raise UserError(
            f"run {run_id!r} is a metric-learning run, its net gives embeddings and no classes: "
            f"advbench retrieve --run {run_id}"
        )


def _with_names(preset: ConfigTable) -> ConfigTable:
    """Return a preset whose components have their registered names; the defense is another's."""
    defense = preset.get("defense", {})
    rest = {key: value for key, value in preset.items() if key != "defense"}
    named = components.with_registered_names(rest)
    specs = [METRIC_DEFENSES.resolve(spec) for spec in specs_of(defense)]
    return named | {"defense": {spec.name: {"name": spec.name, **spec.params} for spec in specs}}
