"""Presets against values taken from the official scripts: ``official.toml`` beside this file.

The rate is computed by our schedule at the updates that training makes, and by the script's own
rule, written down independently, at the script's updates.
"""

import fnmatch
import math
import re
import tomllib
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from robustbench_cli.commands import metric_config
from robustbench_cli.commands.training_task import training_task
from robustbench_cli.config import presets
from robustbench_cli.config.schema import spec_of, specs_of
from robustbench_cli.data import DATASETS
from robustbench_cli.data.pool import Pool
from robustbench_cli.defenses import Recipe
from robustbench_cli.models import MODELS, Shape
from robustbench_cli.optim import OPTIMIZERS, SCHEDULES

FILE = tomllib.loads(Path(__file__).with_name("official.toml").read_text())


def by_preset(rows):
    """The rows with each preset that one of their patterns names."""
    return [
        (name, row)
        for row in rows
        for pattern in row["presets"]
        for name in fnmatch.filter(presets.preset_names(), pattern)
    ]


NAMED = by_preset(FILE["official"])
ROWS = dict(NAMED)
METHODS = by_preset(FILE["method"])
LEAST = 0.97
"""A run is as long as the script's but for this share: whole epochs do not always come out."""

pytestmark = pytest.mark.usefixtures("scanned_once")


def having(key):
    return pytest.mark.parametrize("name", [name for name, row in ROWS.items() if key in row])


def number(value):
    if not isinstance(value, str):
        return float(value)
    above, _, below = value.partition("/")
    return float(above) / float(below or 1)


@pytest.fixture(scope="module")
def resolved():
    return {}


@pytest.fixture
def configured(asking, resolved):
    def configure(name):
        if name not in resolved:
            resolved[name] = training_task(asking(name)).configure(asking(name), [])
        return resolved[name]

    return configure


def objective_of(config):
    if config.task == "metric":
        return metric_config.built(config.defense)
    return Recipe.build(specs_of(config.defense)).objective


def updates_per_epoch(config, images):
    """As the trainer splits an epoch: whole batches of labelled images, and the rest."""
    size, share = config.train.batch_size, config.train.extra_share
    if config.extra and share:
        size = Pool(data=None, share=share, first=images).labelled_per_batch(size)
    return math.ceil(images / size) * objective_of(config).updates_per_batch


def official_rate(row, update):
    """The script's rate for an update, counted from 0."""
    rule, total = row["rate"], row["updates"]
    if "steps" in rule:
        return [rate for first, rate in rule["steps"] if first <= update][-1]
    if "levels" in rule:
        update = math.floor(update * rule["levels"] / total + 1e-9) * total / rule["levels"]
    if "points" in rule:
        return float(np.interp(update, *zip(*rule["points"], strict=True)))
    top, bottom = rule["cosine"]
    done = (update - rule.get("begin", 0)) / total
    return bottom + (top - bottom) * 0.5 * (1 + math.cos(math.pi * done))


def looked_at(row, total, epoch):
    """Updates of a run of ours: the first and last of each epoch, and those around each drop."""
    scale = total / row["updates"] if row.get("by") == "share" else 1
    turns = [first for first, _ in row["rate"].get("steps", row["rate"].get("points", []))]
    near = [round(turn * scale) + away for turn in turns for away in range(-3, 4)]
    ends = [start + away for start in range(0, total + 1, epoch) for away in (-1, 0, 1)]
    return sorted({update for update in (*near, *ends) if 0 <= update < total})


@having("rate")
def test_the_rate_is_the_script_s_at_every_update(name, configured):
    row, config = ROWS[name], configured(name)
    epoch = updates_per_epoch(config, row["images"])
    total = epoch * config.train.epochs
    schedule = SCHEDULES.build(spec_of(config.schedule))
    late, share = row.get("late", 0), row.get("by") == "share"
    for update in looked_at(row, total, epoch):
        began = update // epoch / config.train.epochs
        ours = config.train.lr * schedule(update / total, began=began)
        theirs = update * row["updates"] / total if share else update - late
        if theirs < 0:
            continue
        rates = [official_rate(row, theirs)]
        if share:  # a drop may fall between two updates of ours
            rates += [official_rate(row, max(0, theirs + away)) for away in (-1e-6, 1e-6)]
        assert any(ours == pytest.approx(rate, rel=1e-6, abs=1e-12) for rate in rates), update


@having("updates")
def test_a_run_makes_as_many_updates(name, configured):
    row, config = ROWS[name], configured(name)
    made = updates_per_epoch(config, row["images"]) * config.train.epochs
    assert LEAST < made / row["updates"] < 1 / LEAST
    assert config.train.validation == {49_000: 1_000, 55_000: 5_000}.get(row["images"], 0)


@cache
def net(config, channels, side):
    """The net of such a configuration, without values: what decays depends on shapes alone."""
    shape = Shape(channels, side, side, 10, (0.5,) * channels, (0.5,) * channels)
    with torch.device("meta"):
        return MODELS.build(spec_of(dict(config))).build(shape)


@having("decay")
def test_what_decays_is_what_decays_there(name, configured):
    config, (amount, kind) = configured(name), ROWS[name]["decay"]
    side = (1, 28) if "mnist" in config.dataset["name"] else (3, 32)
    model = net(tuple(config.model.items()), *side)
    optimizer = OPTIMIZERS.build(spec_of(config.optimizer)).build(model, config.train.lr)
    decays = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert len(decays) == len([*model.parameters()])
    for parameter in model.parameters():
        wanted = amount if kind == "all" or parameter.ndim > 1 else 0.0
        assert decays[id(parameter)] == pytest.approx(wanted)


@having("augment")
def test_images_are_augmented_as_there(name, configured):
    config, wanted = configured(name), ROWS[name]["augment"]
    known = DATASETS.describe(DATASETS.build(spec_of(config.dataset)))
    assert {key: known[key] for key in wanted} == wanted


@having("attack")
def test_the_inner_attack_is_that_of_the_script(name, configured):
    config, wanted = configured(name), ROWS[name]["attack"]
    objective = objective_of(config)
    assert config.threat.eps == pytest.approx(number(wanted["eps"]))
    if "step" in wanted:
        assert objective.step * config.threat.eps == pytest.approx(number(wanted["step"]))
    for theirs, ours in {
        "start": "start",
        "steps": "steps",
        "mode": "attack_mode",
        "replays": "replays",
    }.items():
        if theirs in wanted:
            assert getattr(objective, ours) == wanted[theirs]


@pytest.mark.parametrize("name", ROWS)
def test_the_optimizer_is_that_of_the_script(name, configured):
    usual = {"name": "sgd", "momentum": 0.9, "nesterov": False}
    wanted = ROWS[name].get("optimizer", usual)
    made = OPTIMIZERS.describe(OPTIMIZERS.build(spec_of(configured(name).optimizer)))
    assert {key: made[key] for key in wanted} == wanted


@having("training")
def test_training_has_the_script_s_settings(name, configured):
    train = configured(name).train
    assert {key: getattr(train, key) for key in ROWS[name]["training"]} == ROWS[name]["training"]


@pytest.mark.parametrize(("name", "row"), METHODS, ids=[name for name, _ in METHODS])
def test_the_method_s_parameters_are_those_of_the_script(name, row, configured):
    tables = configured(name).defense
    for part, wanted in row["parts"].items():
        for key, value in wanted.items():
            ours = tables[part][key]
            assert ours == (pytest.approx(number(value)) if isinstance(ours, float) else value)


@having("share")
def test_as_many_images_of_a_batch_are_extra_ones(name, configured):
    config, share = configured(name), float(Fraction(str(ROWS[name]["share"])))
    labelled = Pool(data=None, share=config.train.extra_share, first=0).labelled_per_batch(
        config.train.batch_size
    )
    assert config.extra
    assert config.train.extra_share == pytest.approx(share)
    assert labelled == round((1 - share) * config.train.batch_size)


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if "share" not in row])
def test_where_no_share_is_named_there_is_no_extra_data(name, configured):
    assert not configured(name).extra


@having("model")
def test_the_net_is_that_of_the_script(name, configured):
    config, wanted = configured(name), ROWS[name]["model"]
    built = MODELS.build(spec_of(config.model))
    assert config.model["name"] == wanted["name"]
    assert {key: getattr(built, key) for key in wanted if key != "name"} == {
        key: value for key, value in wanted.items() if key != "name"
    }


@pytest.mark.parametrize("name", ROWS)
def test_a_preset_names_the_repository_that_its_values_are_from(name):
    repository = re.compile(r"(?<![\w/-])[A-Za-z][\w-]*/[\w-]+(?=, )")
    said = repository.findall(presets.preset_source(name)["official"])
    assert {*said} <= {*repository.findall(ROWS[name]["source"])}


def test_every_row_names_its_source_and_presets_that_there_are():
    assert len(NAMED) == len(ROWS)  # none is in two rows
    for row in (*FILE["official"], *FILE["method"]):
        assert re.search(r"[\w-]+/[\w-]+, .*\w|\(20\d\d\)", row["source"]), row["source"]
        for pattern in row["presets"]:
            assert fnmatch.filter(presets.preset_names(), pattern), pattern
