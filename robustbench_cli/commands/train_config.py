"""From names and settings to objects: configuration, device, data, model."""

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from robustbench_cli import masks
from robustbench_cli.attacks import ATTACKS
from robustbench_cli.config import catalogue, presets
from robustbench_cli.config.schema import (
    MANY,
    ONE,
    ConfigTable,
    TrainConfig,
    TrainPrecision,
    merged,
    refined,
    settings,
    spec_of,
    specs_of,
    validated,
)
from robustbench_cli.core.errors import UserError
from robustbench_cli.core.registry import Registry, Spec
from robustbench_cli.core.threat import Norm, Threat
from robustbench_cli.data import DATASETS, Dataset
from robustbench_cli.defenses import DEFENSES, Recipe, parse
from robustbench_cli.distributed import env
from robustbench_cli.models import MODELS, Classifier, Shape, has_bf16
from robustbench_cli.optim import OPTIMIZERS, SCHEDULES
from robustbench_cli.runs import environment as software

COMPONENTS: Mapping[str, Registry[Any]] = {
    "dataset": DATASETS,
    "extra": DATASETS,
    "model": MODELS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "defense": DEFENSES,
    "attack": ATTACKS,
}


USUAL: ConfigTable = {"optimizer": {"name": "sgd"}, "schedule": {"name": "piecewise"}}
"""What holds where not even the data set says otherwise (Rice et al., 2020)."""


SMOKE: ConfigTable = {
    "dataset": {"name": "digits"},
    "model": {"name": "digits-cnn"},
    "train": {"limit": 96, "batch_size": 32, "probe": 32},
}
"""What a smoke test of any recipe trains on."""
SMOKE_SIDE = 8
"""Pixels a side of the digits."""
SMOKE_AT_MOST = {"epochs": 12, "select_epoch": 12, "validation": 32, "lr": 0.01, "begin": 6}
"""Long enough for what begins after some epochs; slow enough that no small net diverges."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a command reads and writes."""

    out: Path = Path("results")
    data_dir: Path = Path("data")
    device: str = "auto"


def described(values: ConfigTable) -> ConfigTable:
    """A training configuration with all parameters of its components but the defense's."""
    whole = dict(values)
    for kind in ("dataset", "extra", "model", "optimizer", "schedule"):
        if values.get(kind):
            whole[kind] = COMPONENTS[kind].describe(COMPONENTS[kind].build(spec_of(values[kind])))
    return whole


def tables_of(recipe: Recipe) -> ConfigTable:
    """The ``defense`` section with all parameters."""
    return {table["name"]: table for table in map(DEFENSES.describe, recipe.parts)}


def component(kind: str, text: str) -> ConfigTable:
    """``wrn-28-10`` or ``folder:PATH`` as a configuration table."""
    spec = COMPONENTS[kind].resolve(Spec.parse(text))
    return {"name": spec.name, **spec.params}


def defense_tables(text: str) -> ConfigTable:
    """``trades:beta=1+awp`` as the ``defense`` section."""
    tables: ConfigTable = {}
    for spec in map(DEFENSES.resolve, parse(text)):
        if spec.name in tables:
            raise UserError(f"{spec.name!r} is given twice in {text!r}; once is enough")
        tables[spec.name] = {"name": spec.name, **spec.params}
    return tables


def train_config(typed: ConfigTable, pairs: list[str], *, smoke: bool = False) -> TrainConfig:
    """The whole configuration: data set's defaults < preset < flags < ``--set``.

    Args:
        typed: what flags said, by section; ``preset`` may name one.
        pairs: what ``--set`` said, as ``key=value``.
        smoke: run the same code in seconds: the digits, few of them, few epochs.

    Raises:
        UserError: an unknown name, a bad value, or a combination that makes no sense.
    """
    changes = settings(pairs)
    if "preset" in changes:
        raise UserError("--set preset=...: a preset is named by --preset")
    name = typed.get("preset")
    preset = known(presets.load_preset(name)) if name else {}
    layers = [preset, typed, *([SMOKE] if smoke else [])]
    chosen = refined(merged({"dataset": {"name": "digits"}}, *layers), changes)["dataset"]
    dataset = DATASETS.build(spec_of(chosen))
    values = refined(merged(USUAL, dataset.defaults, *layers), changes)
    values["dataset"] = chosen
    if name:
        values["preset"] = preset["preset"]
    if smoke:
        values["train"] = _capped(values["train"])
        values["extra"] = values["dataset"] if values.get("extra") else {}
    if not values.get("defense"):
        raise UserError("name a defense, e.g. advbench train trades; advbench list defenses")
    values = described(values)
    values["threat"] = radius_of(values.get("threat", {}), dataset)
    recipe = Recipe.build(specs_of(values["defense"]))
    if smoke:
        recipe = _small(recipe)
    values["defense"] = tables_of(recipe)
    config = validated(TrainConfig, values)
    recipe.check(config.train.epochs)
    if name:
        _check_needs(name, config, recipe)
    return config


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


def device(name: str) -> torch.device:
    """The device that ``--device`` means; raise ``UserError`` if it is not there."""
    usual = {"auto": "cuda" if torch.cuda.is_available() else "cpu"}
    try:
        found = torch.device(usual.get(name, name))
    except RuntimeError:
        raise UserError(f"unknown device {name!r}; use cpu, cuda, cuda:1 or auto") from None
    if found.type == "cuda" and not (found.index or 0) < torch.cuda.device_count():
        raise UserError(
            f"no CUDA device {name!r} (torch {torch.__version__} sees "
            f"{torch.cuda.device_count()}); use --device cpu"
        )
    gone = found.type == "mps" and not torch.backends.mps.is_available()
    if gone or found.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"device {name!r} is not supported; use cpu, cuda or auto")
    return found


def deterministic(wanted: bool) -> None:
    """Have torch take algorithms that repeat themselves, or any; call it before CUDA starts."""
    if wanted:
        # cuBLAS reads it once, as it starts; without it torch refuses matrix products on a GPU.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(wanted)


def environment(where: torch.device) -> dict[str, Any]:
    """Software and hardware, for the record."""
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else _processor()
    return software.describe(
        device=str(where),
        device_name=name,
        threads=torch.get_num_threads(),
        processes=env.world(),
    )


def _processor() -> str:
    """The processor's name; Linux keeps it out of the platform module's reach."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())


def precision(asked: TrainPrecision, where: torch.device) -> TrainPrecision:
    """What training runs in: as asked, or bfloat16 where the hardware is made for it."""
    usual: dict[TrainPrecision, TrainPrecision] = {"auto": "bf16" if has_bf16(where) else "float32"}
    return usual.get(asked, asked)


def build_model(config: Mapping[str, Any], shape: Shape) -> Classifier:
    """A fresh network as the model's table and the defense's parts want it."""
    model = MODELS.build(spec_of(config["model"])).build(shape)
    return Recipe.build(specs_of(config["defense"])).prepare(model)


def shape_from(table: Mapping[str, Any]) -> Shape:
    """A recorded shape."""
    lists = {key: tuple(table[key]) for key in ("mean", "std")}
    return Shape(**{**table, **lists})


def subject(defense: Mapping[str, Mapping[str, Any]]) -> str:
    """``trades:beta=1.0+awp``: a recipe with the parameters that are not its defaults."""
    names = []
    objective = next(iter(defense), "")
    for label, table in defense.items():
        plain = Recipe.build([Spec(objective), *([Spec(label)] if label != objective else [])])
        usual = tables_of(plain)[table["name"]]
        odd = ",".join(f"{k}={_short(v)}" for k, v in table.items() if usual[k] != v)
        names.append(f"{label}:{odd}" if odd else label)
    return "+".join(names)


def label_of(registry: Registry[Any], component: Any) -> str:
    """``gaussian:score=posterior``: the name, and the parameters that are not its defaults."""
    given, usual = registry.describe(component), registry.describe(type(component)())
    odd = ",".join(
        f"{key}={catalogue.typed(value)}" for key, value in given.items() if value != usual[key]
    )
    return f"{given['name']}:{odd}" if odd else str(given["name"])


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def radius_of(threat: Mapping[str, Any], dataset: Dataset) -> ConfigTable:
    """The threat with the data set's usual radius where none is given, its mask written out."""
    norm = validated(_OnlyNorm, {"norm": threat.get("norm", "Linf")}).norm
    found = asdict(validated(Threat, {"eps": dataset.eps[norm], **threat, "norm": norm}))
    return {**found, "mask": masks.canonical(found["mask"])}


def _small(recipe: Recipe) -> Recipe:
    """A recipe with what counts pixels or epochs cut down to what a smoke run has of them."""
    modifiers = tuple(each.small(SMOKE_SIDE) for each in recipe.modifiers)
    tables = tables_of(replace(recipe, modifiers=modifiers))
    return Recipe.build(specs_of({name: _capped(table) for name, table in tables.items()}))


def _capped(section: ConfigTable) -> ConfigTable:
    """Settings with what is larger than a smoke run takes cut down."""
    cut = {
        key: min(value, SMOKE_AT_MOST[key])
        for key, value in section.items()
        if key in SMOKE_AT_MOST and isinstance(value, int | float)
    }
    return {**section, **cut}


@dataclass(frozen=True)
class _OnlyNorm:
    norm: Norm


def known(preset: ConfigTable) -> ConfigTable:
    """A preset with its components' names resolved, so that layers can be compared."""
    result = dict(preset)
    for kind in {*ONE} & {*preset}:
        result[kind] = _resolved(kind, preset[kind])
    for kind in {*MANY} & {*preset}:
        parts = {label: _resolved(kind, t, label) for label, t in preset[kind].items()}
        result[kind] = parts
    if "defense" in preset:  # its parts are told apart by name: there is one of each
        result["defense"] = {table["name"]: table for table in result["defense"].values()}
    return result


def _resolved(kind: str, table: Mapping[str, Any], label: str = "") -> ConfigTable:
    spec = COMPONENTS[kind].resolve(spec_of(table, label))
    return {"name": spec.name, **spec.params}
